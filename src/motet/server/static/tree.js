// A conversation as a tree: each turn is a question and its answer, its parent the answer it follows. Asking again makes
// a sibling with the same question, editing one with another. Knows no server and no elements.

export class Turn {
  /** @param parent the turn before, or null @param answer an Answer */
  constructor(parent, question, answer) {
    Object.assign(this, { parent, question, answer, children: [] });
    parent?.children.push(this);
  }
}

export class Tree {
  constructor() {
    this.root = { children: [], parent: null }; // its children are first turns
    this.leaf = null; // the turn that is shown last
  }

  /** A new turn after `parent` (null: the first), shown from now on. */
  add(parent, question, answer) {
    const turn = new Turn(parent ?? this.root, question, answer);
    this.leaf = turn;
    return turn;
  }

  /** The turns shown, first to last. */
  get path() {
    const turns = [];
    for (let turn = this.leaf; turn && turn !== this.root; turn = turn.parent) turns.unshift(turn);
    return turns;
  }

  /** The turn before, or null for a first one. */
  before(turn) {
    return turn.parent === this.root ? null : turn.parent;
  }

  /** The first turn before this one that has an answer the server knows by an id; this turn if there is none before. */
  first(turn) {
    let first = turn;
    for (let at = turn; at !== this.root; at = at.parent) if (at.answer.id) first = at;
    return first;
  }

  /** The turn whose answer has this id. */
  find(id, among = this.root.children) {
    for (const turn of among) {
      const found = turn.answer.id === id ? turn : this.find(id, turn.children);
      if (found) return found;
    }
    return null;
  }

  /** Other wordings of a turn's question, each by its latest answer (this turn for its own), oldest first. */
  questions(turn) {
    const latest = new Map();
    for (const sibling of turn.parent.children) latest.set(sibling.question, sibling);
    latest.set(turn.question, turn);
    return [...latest.values()];
  }

  /** All answers to a turn's question, oldest first. */
  answers(turn) {
    return turn.parent.children.filter((s) => s.question === turn.question);
  }

  /** Takes a turn away, with all that followed. */
  remove(turn) {
    turn.parent.children.splice(turn.parent.children.indexOf(turn), 1);
    this.leaf = turn.parent === this.root ? null : turn.parent;
  }

  /** Shows a turn, and of what follows it the latest. */
  show(turn) {
    while (turn.children.length) turn = turn.children.at(-1);
    this.leaf = turn;
  }
}
