// Looking closely on the Rank page: images by pixels.js, texts by the size of their type.
const zoomDialog = q(".rk-zoom");
const panes = q(".rk-panes");
const ofTexts = () => item?.samples === "texts";
const look = pixelView(zoomDialog, {
  area: panes,
  pane: ".rk-pane",
  off: ofTexts,
  press: (pane) => put(Number(pane.dataset.position)),
});
let type = 1;
const sizeType = (size) => {
  type = Math.min(2.2, Math.max(0.7, size));
  panes.style.setProperty("--zoom", type);
  q(".rk-scale").textContent = `${Math.round(type * 100)} %`;
};
// It opens at no less than one pixel of the screen for one of the image: that is what zoom is for.
const enlarge = () => (ofTexts() ? sizeType(1) : look.enlarge());
const moveBy = (x, y) => {
  if (!ofTexts()) look.moveBy(x, y);
  for (const text of panes.querySelectorAll(".rk-words")) text.scrollBy(-x, -y);
};

const arrangePanes = () => {
  const count = item.candidates.length;
  let columns = kind.panes(count);
  if (item.samples === "images") {
    const image = panes.querySelector("img");
    const aspect = image?.naturalWidth ? image.naturalWidth / image.naturalHeight : 1;
    const { clientWidth: width, clientHeight: height } = panes;
    if (width && height) columns = Candidates.grid(count, { width, height, gap: 2, aspect }).columns;
  }
  panes.style.setProperty("--zoom-columns", columns);
};
// What is said and what can be pressed lies below the images, of the page or of this dialog, which
// makes the rest of the page inert and covers it. It is moved, so that there is one of each.
const below = q(".rk-below");
const placeBelow = () => {
  const place = zoomDialog.open ? zoomDialog : root;
  if (below.parentNode === place) return;
  if (zoomDialog.open) zoomDialog.append(below);
  else q(".rk-work").after(below);
};
const closeZoom = () => {
  zoomDialog.close();
  placeBelow();
  if (!session) return;
  arrange();
  draw();
};
zoomDialog.addEventListener("close", () => zoomDialog.open || closeZoom()); // by Escape
const openZoom = () => {
  panes.replaceChildren();
  item.candidates.forEach((candidate, position) => {
    const pane = make("div", "rk-pane");
    pane.dataset.position = position;
    const shown = kind.inPane(candidate);
    shown.addEventListener("load", () => {
      if (!position) arrangePanes();
      look.settle();
      drawSeen();
    });
    shown.addEventListener("error", drawSeen);
    pane.append(shown, make("span", "rk-key", position + 1), make("span", "rk-rank"));
    panes.append(pane);
  });
  if (!zoomDialog.open) zoomDialog.showModal();
  placeBelow();
  openPrompt(q(".rk-zoom-prompt"), false);
  draw();
  arrangePanes();
  enlarge();
};
const zoomActions = {
  ...look.actions,
  in: () => (ofTexts() ? sizeType(type + 0.15) : look.actions.in()),
  out: () => (ofTexts() ? sizeType(type - 0.15) : look.actions.out()),
  fit: () => (ofTexts() ? sizeType(1) : look.actions.fit()),
  close: closeZoom,
};
