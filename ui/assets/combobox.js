// The list of a Dropdown is closed when the focus leaves it by Tab. Gradio looks at the key only after that,
// and opens the list again: it would stay open, over the field below.
window.addEventListener(
  "keydown",
  (event) => {
    if (event.key === "Tab" && event.target.closest?.('input[role="combobox"]')) event.stopPropagation();
  },
  true,
);
