// Looking closely: images side by side, or over each other, at one scale and place, so that the same
// pixels of all are seen. A scale is in pixels of the screen for one of the image, whatever the screen
// and the zoom of the browser make of CSS pixels; x and y are where the middle of the images lies,
// in CSS pixels from the middle of their pane.
const ZOOM_KEYS = { "+": "in", "-": "out", 0: "fit", p: "pixels" };
const PAN_KEYS = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };

// `dialog` has an `area` with panes, whose images lie at their middles, and [data-scale], which names
// the scale. Where `off` says so there are no images. `grab` may take a press of one pointer, to
// follow it in place of panning; `press` gets the pane of a press that stays where it is.
const pixelView = (dialog, { area, pane, off = () => false, grab = () => null, press = () => {} }) => {
  const [LEAST, MOST] = [0.1, 32]; // scales; small images fill their panes at more
  const view = { scale: 1, x: 0, y: 0 };
  let least = 0; // the whole image fills its pane, at no less than this scale; null: as somebody has chosen
  const images = () => Array.from(area.querySelectorAll(`${pane} img`));
  const named = (scale) => (scale >= 1 ? `${+scale.toFixed(2)}:1` : `${Math.round(scale * 100)} %`);

  // The scale at which a whole image fills its pane; null while there is none.
  const whole = () => {
    const image = images().find((each) => each.naturalWidth);
    const { clientWidth: width, clientHeight: height } = image?.closest(pane) ?? {};
    if (!width || !height) return null;
    return devicePixelRatio * Math.min(width / image.naturalWidth, height / image.naturalHeight);
  };
  const isWhole = () => !view.x && !view.y && view.scale <= (whole() ?? 0) * 1.001;
  const draw = () => {
    const size = view.scale / devicePixelRatio;
    for (const image of images()) {
      image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${size}) translate(-50%, -50%)`;
    }
    dialog.toggleAttribute("data-whole", isWhole());
    dialog.toggleAttribute("data-enlarged", view.scale >= 1);
    dialog.querySelector("[data-scale]").textContent = named(view.scale);
  };
  const put = (changes) => {
    least = null;
    Object.assign(view, changes);
    draw();
  };

  // As it was asked for, now that an image has been loaded or the panes have another size.
  const settle = () => {
    if (least !== null) Object.assign(view, { scale: Math.max(least, whole() ?? 1), x: 0, y: 0 });
    draw();
  };
  const fill = (scale) => () => {
    least = scale;
    settle();
  };
  const fit = fill(0);
  const enlarge = fill(1);
  const scaleTo = (scale) => put({ scale, x: 0, y: 0 });
  const moveBy = (x, y) => put({ x: view.x + x, y: view.y + y });
  // Scale by a factor, around a point that is given from the middle of its pane.
  const zoomBy = (factor, x = 0, y = 0) => {
    const scale = Math.min(Math.max(MOST, whole() ?? 0), Math.max(LEAST, view.scale * factor));
    const by = scale / view.scale;
    put({ scale, x: x - (x - view.x) * by, y: y - (y - view.y) * by });
  };
  // To the next whole number of pixels of the screen for one of the image.
  const scaleBy = (direction, x, y) => {
    const before = view.scale;
    const next = direction > 0 ? Math.floor(before) + 1 : Math.ceil(before) - 1;
    zoomBy((before >= 1 && next >= 1 ? next : before * (direction > 0 ? 1.25 : 0.8)) / before, x, y);
  };
  const actions = {
    in: () => scaleBy(1),
    out: () => scaleBy(-1),
    one: () => scaleTo(1),
    fit,
    pixels: () => {
      const on = dialog.toggleAttribute("data-pixels");
      dialog.querySelector('[data-zoom="pixels"]').ariaPressed = String(on);
    },
  };

  /* ---------- wheel, mouse and fingers ---------- */
  const paneAt = (x, y) => document.elementFromPoint(x, y)?.closest(pane);
  const fromMiddle = (x, y) => {
    const box = (paneAt(x, y) ?? area.querySelector(pane)).getBoundingClientRect();
    return [x - box.left - box.width / 2, y - box.top - box.height / 2];
  };
  area.addEventListener("wheel", (event) => {
    if (off() || !event.target.closest(pane)) return; // it scrolls what is under it
    event.preventDefault();
    scaleBy(event.deltaY < 0 ? 1 : -1, ...fromMiddle(event.clientX, event.clientY));
  }, { passive: false });

  const STILL = 6; // pixels within which a press is a click
  const fingers = new Map(); // those that are down: where each is now
  let travelled = 0;
  let follow = null; // what follows the only one, in place of panning
  area.addEventListener("pointerdown", (event) => {
    if (off() || event.button || !event.target.closest(pane)) return;
    if (!fingers.size) travelled = 0;
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    area.setPointerCapture(event.pointerId);
    follow = fingers.size === 1 ? grab(event) : null;
  });
  area.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    fingers.set(event.pointerId, now);
    const [x, y] = [now.x - before.x, now.y - before.y];
    travelled += Math.hypot(x, y);
    if (fingers.size === 1) {
      if (follow) follow(event);
      else moveBy(x, y);
    }
    if (fingers.size !== 2) return;
    const [other] = Array.from(fingers).filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const apart = (at) => Math.max(1, Math.hypot(at.x - other.x, at.y - other.y));
    moveBy(x / 2, y / 2);
    zoomBy(apart(now) / apart(before), ...fromMiddle((now.x + other.x) / 2, (now.y + other.y) / 2));
  });
  const lift = (event) => {
    if (!fingers.delete(event.pointerId) || fingers.size || travelled > STILL) return;
    const pressed = paneAt(event.clientX, event.clientY);
    if (event.type === "pointerup" && pressed) press(pressed);
  };
  area.addEventListener("pointerup", lift);
  area.addEventListener("pointercancel", lift);
  new ResizeObserver(() => off() || settle()).observe(area);

  return { actions, enlarge, fit, isWhole, moveBy, scaleBy, settle };
};
