// A row of options of which one is chosen: the listbox pattern of
// https://www.w3.org/WAI/ARIA/apg/patterns/listbox/. The row is one stop of the Tab key; arrows, Home and End
// move within it, and Enter, Space or a click choose, for what is chosen is asked of the server.
// `name` is what the options have in their data, such as "run". Gives what draws them anew, which keeps
// the focus where it was.
const listbox = (list, name) => {
  const options = () => Array.from(list.querySelectorAll('[role="option"]'));
  const chosen = () => options().find((each) => each.ariaSelected === "true") ?? options()[0];
  const stopAt = (option) => {
    for (const each of options()) each.tabIndex = each === option ? 0 : -1;
  };
  list.setAttribute("aria-orientation", "horizontal");
  list.addEventListener("focusin", (event) => stopAt(event.target.closest('[role="option"]')));
  list.addEventListener("focusout", (event) => {
    if (!list.contains(event.relatedTarget)) stopAt(chosen());
  });
  list.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const all = options();
    const at = all.indexOf(document.activeElement);
    const to = {
      ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: all.length - 1,
    }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    all[Math.min(Math.max(to, 0), all.length - 1)].focus();
  });
  return (drawn) => {
    const active = document.activeElement;
    const held = list.contains(active) ? active.dataset[name] : null;
    list.replaceChildren(...drawn);
    const again = held === null ? undefined : (options().find((each) => each.dataset[name] === held) ?? chosen());
    stopAt(again ?? chosen());
    again?.focus({ preventScroll: true });
  };
};
