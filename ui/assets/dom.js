// What the scripts of components share: `asset` puts it before each of them.
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
// Whether a value is another one than the last under this key: what has not changed stays as it is.
const seen = {};
const changed = (key, value) => {
  const now = JSON.stringify(value);
  if (seen[key] === now) return false;
  seen[key] = now;
  return true;
};
