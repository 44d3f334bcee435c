// What this browser remembers: choices for as long as it likes, and what was written but not yet taken by a server for as
// long as the tab lives, so that a reload loses no word. Where storage is forbidden, nothing is remembered and nothing breaks.

/** A choice by its name; null when there is none. */
export function kept(name) {
  return read(() => localStorage.getItem(`motet.${name}`));
}

export function keep(name, value) {
  read(() => localStorage.setItem(`motet.${name}`, value));
}

/** Choices kept together, by their names. */
export function keptAll(name) {
  return read(() => JSON.parse(localStorage.getItem(`motet.${name}`))) ?? {};
}

const unsent = new Set(read(() => JSON.parse(sessionStorage.getItem("motet.unsent"))) ?? []);

/** What was being written, and before it what was asked and never taken. */
export function draft() {
  return [...unsent, read(() => sessionStorage.getItem("motet.draft"))].filter(Boolean).join("\n\n");
}

export function keepDraft(text) {
  read(() => sessionStorage.setItem("motet.draft", text));
}

/** A question on its way: kept until the server has it. */
export function sending(question) {
  unsent.add(question);
  keepUnsent();
}

export function taken(question) {
  unsent.delete(question);
  keepUnsent();
}

/** Everything unsent is in the reader's hands again. */
export function forgetUnsent() {
  unsent.clear();
  keepUnsent();
}

function keepUnsent() {
  read(() => sessionStorage.setItem("motet.unsent", JSON.stringify([...unsent])));
}

function read(from) {
  try {
    return from();
  } catch {
    return null;
  }
}
