// On a narrow screen what is watched comes before the form. The elements themselves change places: what
// is moved by its look alone stays where it was for the Tab key.
const narrow = matchMedia("(max-width: 900px)");
const putInOrder = () => {
  const page = element.closest(".page");
  const [watched, later] = [".watched", ".later"].map((each) => page.querySelector(`:scope > ${each}`));
  const last = narrow.matches && !page.querySelector(".mo[data-empty]");
  if (last === Boolean(watched.compareDocumentPosition(later) & Node.DOCUMENT_POSITION_FOLLOWING)) return;
  const held = later.contains(document.activeElement) ? document.activeElement : null;
  if (last) watched.after(later);
  else watched.before(later);
  held?.focus({ preventScroll: true });
};
const orderWhenThere = () => (element.closest(".page") ? putInOrder() : requestAnimationFrame(orderWhenThere));
narrow.addEventListener("change", putInOrder);
