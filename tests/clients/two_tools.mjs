// The two tools every JavaScript client is given, and what was called of them.
const temperatures = { Paris: 18, Oslo: 5 };
export const called = [];
export const functions = {
  temperature: ({ city }) => (called.push(`temperature ${city}`), temperatures[city]),
  add: ({ a, b }) => (called.push(`add ${a} ${b}`), a + b),
};
