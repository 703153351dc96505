// Looking closely: one scale and offset for all images, one size of type for all texts.
const view = { scale: 1, x: 0, y: 0 };
const zoomDialog = q(".rk-zoom");
const panes = q(".rk-panes");
const paneImages = () => Array.from(panes.querySelectorAll("img"));
const label = (scale) => (scale >= 1 ? `${+scale.toFixed(2)}:1` : `${Math.round(scale * 100)} %`);

const drawZoom = () => {
  if (item.samples === "texts") {
    panes.style.setProperty("--zoom", view.scale);
    q(".rk-scale").textContent = `${Math.round(view.scale * 100)} %`;
    return;
  }
  for (const image of paneImages()) {
    const { naturalWidth: w, naturalHeight: h } = image;
    image.style.transform =
      `translate(${view.x - (w * view.scale) / 2}px, ${view.y - (h * view.scale) / 2}px) ` +
      `scale(${view.scale})`;
  }
  q(".rk-scale").textContent = label(view.scale);
};

// The scale at which a whole image fills its pane.
const whole = () => {
  const image = paneImages()[0];
  const pane = panes.firstElementChild;
  if (!image || !image.naturalWidth) return null;
  return Math.min(pane.clientWidth / image.naturalWidth, pane.clientHeight / image.naturalHeight);
};
const scaleTo = (scale) => {
  Object.assign(view, { scale, x: 0, y: 0 });
  drawZoom();
};
const fit = () => scaleTo(item.samples === "texts" ? 1 : (whole() ?? 1));
// It opens at no less than one pixel of the screen for one of the image: that is what zoom is for.
const enlarge = () => scaleTo(item.samples === "texts" ? 1 : Math.max(1, whole() ?? 1));

// Scale by a factor, around a point that is given from the middle of its pane.
const zoomBy = (factor, x = 0, y = 0) => {
  const before = view.scale;
  view.scale = Math.min(32, Math.max(0.1, before * factor));
  view.x = x - ((x - view.x) * view.scale) / before;
  view.y = y - ((y - view.y) * view.scale) / before;
  drawZoom();
};
const scaleBy = (direction, x, y) => {
  if (item.samples === "texts") {
    view.scale = Math.min(2.2, Math.max(0.7, view.scale + 0.15 * direction));
    drawZoom();
    return;
  }
  const before = view.scale;
  const next = direction > 0 ? Math.floor(before) + 1 : Math.ceil(before) - 1;
  zoomBy((before >= 1 && next >= 1 ? next : before * (direction > 0 ? 1.25 : 0.8)) / before, x, y);
};
const moveBy = (x, y) => {
  if (item.samples === "texts") {
    for (const text of panes.querySelectorAll(".rk-words")) text.scrollBy(-x, -y);
    return;
  }
  view.x += x;
  view.y += y;
  drawZoom();
};

const arrangePanes = () => {
  const count = item.candidates.length;
  let columns = kind.panes(count);
  if (item.samples === "images") {
    const image = paneImages()[0];
    const aspect = image?.naturalWidth ? image.naturalWidth / image.naturalHeight : 1;
    const { clientWidth: width, clientHeight: height } = panes;
    if (width && height) columns = Candidates.grid(count, { width, height, gap: 2, aspect }).columns;
  }
  panes.style.setProperty("--zoom-columns", columns);
};
const openZoom = () => {
  panes.replaceChildren();
  item.candidates.forEach((candidate, position) => {
    const pane = make("div", "rk-pane");
    pane.dataset.position = position;
    const shown = kind.inPane(candidate);
    shown.addEventListener("load", () => (position ? drawZoom() : (arrangePanes(), enlarge())));
    pane.append(shown, make("span", "rk-key", position + 1), make("span", "rk-rank"));
    panes.append(pane);
  });
  zoomDialog.toggleAttribute("data-pixels", q('[data-zoom="pixels"]').ariaPressed === "true");
  q(".rk-zoom-prompt").textContent = item.prompt;
  if (!zoomDialog.open) zoomDialog.showModal();
  draw();
  arrangePanes();
  enlarge();
};
const zoomActions = {
  in: () => scaleBy(1),
  out: () => scaleBy(-1),
  one: () => scaleTo(1),
  fit,
  pixels: () => {
    const button = q('[data-zoom="pixels"]');
    const on = button.ariaPressed !== "true";
    button.ariaPressed = String(on);
    zoomDialog.toggleAttribute("data-pixels", on);
  },
  close: () => zoomDialog.close(),
};

/* ---------- wheel, mouse and fingers ---------- */
const fromMiddle = (x, y) => {
  const pane = document.elementFromPoint(x, y)?.closest(".rk-pane") ?? panes.firstElementChild;
  const box = pane.getBoundingClientRect();
  return [x - box.left - box.width / 2, y - box.top - box.height / 2];
};
panes.addEventListener("wheel", (event) => {
  if (item.samples === "texts") return; // it scrolls the text under it
  event.preventDefault();
  scaleBy(event.deltaY < 0 ? 1 : -1, ...fromMiddle(event.clientX, event.clientY));
}, { passive: false });

const STILL = 6; // pixels within which a press is a click
const fingers = new Map(); // those that are down: where each is now
let travelled = 0;
panes.addEventListener("pointerdown", (event) => {
  if (item.samples === "texts") return; // texts are selected
  if (!fingers.size) travelled = 0;
  fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  panes.setPointerCapture(event.pointerId);
});
panes.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = { x: event.clientX, y: event.clientY };
  fingers.set(event.pointerId, now);
  const [x, y] = [now.x - before.x, now.y - before.y];
  travelled += Math.hypot(x, y);
  if (fingers.size === 1) moveBy(x, y);
  if (fingers.size !== 2) return;
  const [other] = Array.from(fingers).filter(([id]) => id !== event.pointerId).map(([, at]) => at);
  const apart = (at) => Math.max(1, Math.hypot(at.x - other.x, at.y - other.y));
  moveBy(x / 2, y / 2);
  zoomBy(apart(now) / apart(before), ...fromMiddle((now.x + other.x) / 2, (now.y + other.y) / 2));
});
const lift = (event) => {
  if (!fingers.delete(event.pointerId) || fingers.size || travelled > STILL) return;
  const pane = document.elementFromPoint(event.clientX, event.clientY)?.closest(".rk-pane");
  if (event.type === "pointerup" && pane && !event.button) put(Number(pane.dataset.position));
};
panes.addEventListener("pointerup", lift);
panes.addEventListener("pointercancel", lift);
