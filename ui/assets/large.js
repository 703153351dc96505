// One seed, large: the images of all rows side by side, or of two rows one over the other with a
// divider; always at one scale and place (pixels.js), which stay from seed to seed.
const large = q(".co-large");
const pair = q(".co-pair");
const GRIP = 22; // pixels around the divider within which it is taken

let at = null; // {group, column}
// Which two rows, by their keys, and how much of the left one is seen, in percent.
const slide = { on: false, rows: [null, null], share: 50 };
const moveDivider = (share) => {
  slide.share = Math.min(100, Math.max(0, share));
  q(".co-slide input").value = slide.share;
  q(".co-stack").style.setProperty("--share", `${slide.share}%`);
};

// A press moves the divider: anywhere while the whole image is seen, later at the divider alone.
const takeDivider = (event) => {
  const { left, width } = q(".co-stack").getBoundingClientRect();
  const away = event.clientX - left - (width * slide.share) / 100;
  if (!look.isWhole() && Math.abs(away) > GRIP) return null;
  const follow = ({ clientX }) => moveDivider((100 * (clientX - left)) / width);
  follow(event);
  return follow;
};
const look = pixelView(large, {
  area: pair,
  pane: ".co-pane",
  grab: (event) => (q(".co-stack") ? takeDivider(event) : look.isWhole() ? () => {} : null),
});

const shownImage = (id) => {
  const image = imageOf(id);
  image.draggable = false;
  image.addEventListener("load", look.settle);
  return image;
};
const chooserOf = (rows, side) => {
  const select = make("select");
  select.setAttribute("aria-label", ["Left image", "Right image"][side]);
  select.append(...rows.map(({ key, name }) => new Option(name, key)));
  select.value = slide.rows[side];
  select.onchange = () => {
    slide.rows[side] = select.value;
    drawLarge();
    q(`.co-slide select[aria-label="${select.getAttribute("aria-label")}"]`).focus();
  };
  return select;
};
const slideOf = (rows, seed) => {
  const keys = rows.map(({ key }) => key);
  slide.rows = slide.rows.map((key, side) => (keys.includes(key) ? key : keys[side]));
  const box = make("div", "co-slide");
  const stack = make("div", "co-pane co-stack");
  const [over, under] = slide.rows.map((key, side) => {
    const layer = make("div", side ? "co-layer" : "co-layer co-over");
    layer.append(shownImage(seed[key]));
    return layer;
  });
  const right = under.firstChild;
  right.addEventListener("load", () => {
    stack.style.setProperty("--aspect", right.naturalWidth / right.naturalHeight);
    look.settle();
  });
  const range = make("input");
  Object.assign(range, { type: "range", min: 0, max: 100, step: 1 });
  const [before, after] = slide.rows.map((key) => rows.find((row) => row.key === key).name);
  range.setAttribute("aria-label", `Divider: ${before} left, ${after} right`);
  range.oninput = () => moveDivider(Number(range.value));
  stack.append(under, over, make("i"));
  const names = make("div", "co-sides");
  names.append(chooserOf(rows, 0), range, chooserOf(rows, 1));
  const frame = make("div", "co-frame");
  frame.append(stack);
  box.append(frame, names);
  return box;
};
const figureOf = ({ key, name, rewritten }, group, seed) => {
  const figure = make("figure");
  const said = rewritten && group.rewrite ? `${name}: ${group.rewrite.text}` : name;
  if (!seed[key]) {
    figure.append(make("figcaption", "", said));
    return figure;
  }
  const pane = make("div", "co-pane");
  pane.append(shownImage(seed[key]));
  const file = make("a", "btn", "Download");
  file.href = `${url(seed[key])}/file`;
  file.download = "";
  file.setAttribute("aria-label", `Download ${name}, seed ${seed.seed}`);
  figure.append(pane, make("figcaption", "", said), file);
  return figure;
};

const drawLarge = () => {
  const value = props.value;
  const group = value.groups[at.group];
  const seed = group.seeds[at.column];
  q(".co-large header p").textContent = `${group.prompt}, seed ${seed.seed}`;
  const there = value.rows.filter(({ key }) => seed[key]);
  const [toggle, over] = [q("[data-slider]"), slide.on && there.length > 1];
  toggle.hidden = there.length < 2;
  toggle.setAttribute("aria-pressed", String(over));
  pair.toggleAttribute("data-over", over);
  pair.replaceChildren(
    ...(over ? [slideOf(there, seed)] : value.rows.map((row) => figureOf(row, group, seed))),
  );
  if (over) moveDivider(slide.share);
  look.settle(); // no image is seen for a moment where it does not lie
};
const openLarge = (where) => {
  at = where;
  drawLarge();
  large.showModal();
  look.fit();
};
const step = (by) => {
  const count = props.value.groups[at.group].seeds.length;
  at.column = (at.column + by + count) % count;
  drawLarge();
};

large.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.zoom) {
    look.actions[button.dataset.zoom]();
  } else if (button.dataset.slider !== undefined) {
    slide.on = !slide.on;
    drawLarge();
    if (slide.on) q(".co-slide input")?.focus();
  } else if (button.dataset.step) {
    step(Number(button.dataset.step));
  } else if (button.dataset.close !== undefined) {
    large.close();
  }
});
const KEYS = { ...ZOOM_KEYS, "=": "in", 1: "one" };
const STEPS = { ArrowLeft: -1, ArrowRight: 1, PageUp: -1, PageDown: 1 };
large.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const zoom = look.actions[KEYS[name]];
  const onDivider = event.target.closest("input"); // there the other keys move the divider
  if (zoom) zoom();
  else if (onDivider) return;
  else if (PAN_KEYS[name] && !look.isWhole()) look.moveBy(...PAN_KEYS[name]);
  else if (PAN_KEYS[name] && q(".co-stack")) moveDivider(slide.share + (STEPS[name] ?? 0));
  else if (STEPS[name]) step(STEPS[name]);
  else return;
  event.preventDefault();
});
