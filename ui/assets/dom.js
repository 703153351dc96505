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
// One text that the browser remembers over a reload, where it does not refuse storage.
const remembered = (key) => ({
  get: () => { try { return localStorage.getItem(key); } catch { return null; } },
  set: (value) => { try { localStorage.setItem(key, value); } catch { /* as above */ } },
});
// On a narrow screen a form stands folded above what it makes (ui/pages/folding.py).
const foldForm = () => {
  const box = document.querySelector(".unfold input");
  if (box) box.checked = false;
};
// A text to take along, such as a command, and a button that copies it.
const copyable = (why, text) => {
  const box = make("div", "take");
  const button = make("button", "btn", "Copy");
  button.type = "button";
  button.setAttribute("aria-label", `Copy: ${text}`);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch { // where a page may not write it: select it, so that Ctrl+C does
      getSelection().selectAllChildren(box.querySelector("code"));
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 3000);
  });
  box.append(make("span", "", why), make("code", "", text), button);
  return box;
};
