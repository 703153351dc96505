// The ranking widget: draws one item, turns keys, clicks and drags into Session transitions, and
// talks to the server. Nothing is shown as saved before the server's receipt has arrived; what is
// not submitted yet lives in the browser's storage and survives a reload and a server restart.
const root = element.querySelector(".rk");
const q = (selector) => root.querySelector(selector);
const REASONS = props.reasons;
const STORE = "imgalign.rank";
const TIMEOUT_MS = 15000;

let annotator = null; // who ranks
let item = null; // what the server gave: {item, prompt, samples: "images" or "texts",
// candidates: [{token, url}], done, total, next,
// undo: the key of the latest judgement that can be taken back}
let kind = Candidates.images; // how candidates of this item are drawn
let session = null; // the ranking in the making
let key = null; // idempotency key of this judgement, made once per item shown
let busy = false;
let retry = null; // what "Try again" repeats
let looked = 0; // milliseconds this item was in view before `since`
let since = null;

/* ---------- browser storage ---------- */
const load = (name, fallback) => {
  try {
    return JSON.parse(localStorage.getItem(`${STORE}.${name}`)) ?? fallback;
  } catch {
    return fallback;
  }
};
const save = (name, value) => localStorage.setItem(`${STORE}.${name}`, JSON.stringify(value));
const slot = (name) => `${name}.${annotator}`;

const newKey = () => {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
};

const viewed = () => Math.round(looked + (since === null ? 0 : performance.now() - since));
const clock = (running) => {
  if (since !== null) looked += performance.now() - since;
  since = running ? performance.now() : null;
};
const persist = () =>
  save(slot("draft"), { item: item.item, key, session, looked: viewed() });

/* ---------- server ---------- */
const call = async (path, body) => {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), TIMEOUT_MS);
  let response;
  let answer;
  try {
    response = await fetch(new URL(`api/rank/${path}`, document.baseURI), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: abort.signal,
    });
    answer = await response.json();
  } catch {
    throw new Error("The server cannot be reached.");
  } finally {
    clearTimeout(timer);
  }
  if (!response.ok) {
    const error = new Error(answer.error ?? `The server answered ${response.status}.`);
    error.gone = response.status === 409;
    throw error;
  }
  return answer;
};

/* ---------- drawing ---------- */
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const capital = (word) => word[0].toUpperCase() + word.slice(1);
const ordinal = (n) => ["1st", "2nd", "3rd"][n - 1] ?? `${n}th`;
const show = (state) => {
  root.dataset.state = state;
};
const say = (text) => {
  q(".rk-sr").textContent = text;
};
const toast = (text) => {
  const node = q(".rk-toast");
  node.textContent = text;
  node.classList.add("rk-on");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => node.classList.remove("rk-on"), 1600);
};
const complain = (text, again) => {
  retry = again;
  q(".rk-alert p").textContent = text;
  q(".rk-alert").hidden = false;
};
const calm = () => {
  retry = null;
  q(".rk-alert").hidden = true;
};

const rankOf = (position) => {
  const group = Session.groups(session).findIndex((g) => g.includes(position));
  if (group < 0) return null;
  return { rank: group + 1, tied: Session.groups(session)[group].length > 1 };
};

const describe = (position) => {
  const placed = rankOf(position);
  const name = `${capital(kind.noun)} ${position + 1}`;
  if (!placed) return `${name}, not placed`;
  const mates = Session.groups(session)[placed.rank - 1].filter((p) => p !== position);
  const tie = mates.length ? `, tied with ${mates.map((p) => p + 1).join(" and ")}` : "";
  return `${name}, ${ordinal(placed.rank)}${tie}`;
};

// An image is a button as a whole. A text scrolls and is read aloud, so its foot is the button.
const tileOf = (candidate, position) => {
  const whole = item.samples === "images";
  const tile = make(whole ? "button" : "article", "rk-tile");
  const foot = make(whole ? "span" : "button", "rk-foot");
  (whole ? tile : foot).type = "button";
  (whole ? tile : foot).classList.add("rk-put");
  tile.draggable = true;
  tile.dataset.position = position;
  foot.append(make("span", "rk-key", position + 1), make("span", "rk-rank"));
  tile.append(kind.inTile(candidate), foot);
  return tile;
};

const drawItem = () => {
  const count = item.candidates.length;
  root.dataset.samples = item.samples;
  kind = Candidates[item.samples];
  for (const node of root.querySelectorAll("[data-noun]")) {
    node.textContent = kind.noun + node.dataset.noun;
  }
  drawReasons();
  q(".rk-prompt").textContent = item.prompt;
  q(".rk-prompt").toggleAttribute("data-long", item.prompt.length > 160);
  const tiles = q(".rk-tiles");
  tiles.style.setProperty("--columns", kind.columns(count));
  tiles.style.setProperty("--tile-height", kind.height(count));
  tiles.toggleAttribute("data-two", count === 2);
  tiles.replaceChildren(...item.candidates.map(tileOf));
  q(".rk-last-key").textContent = count;
};

const thumb = (position) => {
  const node = make("button", "rk-thumb");
  node.type = "button";
  node.draggable = true;
  node.dataset.position = position;
  node.title = "Click to take out, drag to move";
  node.setAttribute("aria-label", `Take out ${describe(position)}`);
  node.append(kind.inTray(item.candidates[position]), make("span", "rk-number", position + 1));
  return node;
};

const drawTray = () => {
  const tray = q(".rk-tray");
  if (session.verdict !== "ranked") {
    const what =
      session.verdict === "all_bad"
        ? "All bad. Enter submits, B takes it back"
        : `Skip, ${session.reason}. Enter submits, S changes the reason`;
    const node = make("p", "rk-verdict", what);
    tray.replaceChildren(node);
    return;
  }
  const nodes = [];
  const groups = Session.groups(session);
  groups.forEach((group, index) => {
    const gap = make("span", "rk-gap", index ? "›" : "");
    gap.dataset.before = group[0];
    const place = make("div", "rk-slot");
    place.dataset.with = group[0];
    const row = make("div");
    group.forEach((position, i) => {
      if (i) row.append(make("span", "rk-eq", "="));
      row.append(thumb(position));
    });
    place.append(make("b", "", ordinal(index + 1)), row);
    nodes.push(gap, place);
  });
  Session.missing(session).forEach((_, index) => {
    const gap = make("span", "rk-gap", groups.length + index ? "›" : "");
    const place = make("div", "rk-slot rk-free");
    place.dataset.last = "";
    const row = make("div");
    row.append(make("span", "rk-place"));
    place.append(make("b", "", ordinal(groups.length + index + 1)), row);
    nodes.push(gap, place);
  });
  tray.replaceChildren(...nodes);
};

const hint = () => {
  if (busy) return "Saving…";
  if (session.verdict !== "ranked") return "Enter submits";
  const left = Session.missing(session).length;
  if (left === 0) return "Enter submits";
  if (left === 1) return "Enter places the last one";
  return left === item.candidates.length ? "Press a number: best first" : `${left} still to place`;
};

const draw = () => {
  root.dataset.verdict = session.verdict;
  for (const node of root.querySelectorAll(".rk-tile, .rk-pane")) {
    const position = Number(node.dataset.position);
    const placed = rankOf(position);
    const ranked = session.verdict === "ranked" && placed;
    node.querySelector(".rk-rank").textContent = ranked
      ? `${placed.tied ? "=" : ""}${ordinal(placed.rank)}`
      : "";
    if (node.matches(".rk-tile")) {
      const put = node.closest(".rk-put") ?? node.querySelector(".rk-put");
      put.setAttribute("aria-pressed", String(Boolean(ranked)));
      put.setAttribute("aria-label", `${describe(position)}. Key ${position + 1}`);
      node.classList.toggle("rk-placed", Boolean(ranked));
    }
  }
  drawTray();
  q('[data-do="bad"]').setAttribute("aria-pressed", String(session.verdict === "all_bad"));
  q('[data-do="skip"]').setAttribute("aria-pressed", String(session.verdict === "skipped"));
  q('.rk-actions [data-do="tie"]').disabled = session.placed.length < 2;
  q('.rk-actions [data-do="undo"]').disabled = !session.past.length && !item.undo;
  q(".rk-submit").disabled = busy;
  q(".rk-submit").toggleAttribute("data-unready", !Session.ready(session));
  q(".rk-hint").textContent = hint();
};

const drawProgress = () => {
  const { done, total } = item;
  q(".rk-bar i").style.width = total ? `${(100 * done) / total}%` : "0";
  q(".rk-bar").setAttribute("aria-valuemax", total);
  q(".rk-bar").setAttribute("aria-valuenow", done);
  const times = load(slot("times"), []).slice().sort((a, b) => a - b);
  const left = total - done;
  let estimate = "";
  if (times.length >= 2 && left > 0) {
    const minutes = (times[Math.floor(times.length / 2)] * left) / 60000;
    estimate = minutes < 1 ? ", under a minute left" : `, ~${Math.round(minutes)} min left`;
  }
  q(".rk-count").textContent = total ? `${done} of ${total}${estimate}` : "";
};

/* ---------- flow ---------- */
const apply = (after, announce) => {
  if (busy || after === session) return;
  session = after;
  persist();
  calm();
  draw();
  if (announce !== undefined) say(announce);
};

const next = async () => {
  clearTimeout(next.timer);
  q(".rk-who").textContent = annotator;
  try {
    const given = await call("next", { annotator });
    calm();
    receive(given);
  } catch (error) {
    if (!item) show("loading");
    complain(`${error.message} Nothing you submitted is lost.`, next);
    next.timer = setTimeout(() => retry === next && next(), 4000);
  }
};

const receive = (given) => {
  item = given;
  drawProgress();
  closeDialogs();
  if (!item.item) {
    q(".rk-empty-title").textContent = item.done ? "All done, thank you" : "Nothing to rank yet";
    q(".rk-empty-text").textContent = item.done
      ? `You have judged all ${item.done} items. New ones appear here as soon as they are made.`
      : "Make images on the Generate page and send them here.";
    q('.rk-empty [data-do="undo"]').hidden = !item.undo;
    session = null;
    clock(false);
    show("empty");
    return;
  }
  const draft = load(slot("draft"), null);
  const mine = draft && draft.item === item.item && draft.session?.count === item.candidates.length;
  session = mine ? draft.session : Session.fresh(item.candidates.length);
  key = mine ? draft.key : newKey();
  looked = mine ? draft.looked : 0;
  since = null;
  clock(!document.hidden);
  show("ranking");
  Candidates.forget();
  drawItem();
  persist();
  draw();
  say(`${item.prompt}. ${item.candidates.length} ${kind.noun}s.`);
  Candidates.prefetch(item.next);
};

const submit = async () => {
  if (!session || busy) return;
  if (!Session.ready(session)) {
    const filled = Session.complete(session);
    if (filled === session) say(hint());
    apply(filled, `Last ${kind.noun} placed. Enter submits`);
    q(".rk-hint").textContent = hint();
    return;
  }
  busy = true;
  calm();
  persist();
  draw();
  const milliseconds = viewed();
  try {
    await call("submit", {
      annotator,
      key,
      item: item.item,
      ...Session.judgement(session),
      client_ms: milliseconds,
    });
  } catch (error) {
    busy = false;
    draw();
    // A conflict may be final (judged in another tab): asking for the item again settles it, and
    // gives back the same draft where the item is still open.
    complain(`Not saved yet: ${error.message} Your ranking is kept here.`, error.gone ? next : submit);
    return;
  }
  busy = false;
  save(slot("draft"), null);
  const times = load(slot("times"), []);
  save(slot("times"), [...times, Math.min(milliseconds, 120000)].slice(-20));
  toast("Saved");
  await next();
};

const undo = async () => {
  if (busy) return;
  if (session && session.past.length) {
    apply(Session.undo(session), "Undone");
    return;
  }
  if (!item?.undo) {
    say("Nothing to undo");
    return;
  }
  busy = true;
  let back;
  try {
    back = await call("undo", { annotator, key: item.undo });
  } catch (error) {
    busy = false;
    complain(error.message, error.gone ? next : undo);
    return;
  }
  busy = false;
  const again = Session.restored(back.num_candidates, back);
  save(slot("draft"), { item: back.item, key: newKey(), session: again, looked: 0 });
  toast("Taken back");
  await next();
};

/* ---------- dialogs ---------- */
const closeDialogs = () => {
  for (const dialog of root.querySelectorAll("dialog[open]")) dialog.close();
};
for (const dialog of root.querySelectorAll("dialog")) {
  // A closed dialog keeps its focused button for a moment, and Enter would press it again.
  dialog.addEventListener("close", () => {
    if (dialog.contains(document.activeElement)) document.activeElement.blur();
  });
}

const drawReasons = () => {
  const buttons = REASONS[item.samples].map((reason, index) => {
    const node = make("button", "rk-btn");
    node.type = "button";
    node.dataset.reason = reason;
    node.append(make("kbd", "", index + 1), document.createTextNode(capital(reason)));
    return node;
  });
  q(".rk-reasons").replaceChildren(...buttons);
};
const chooseReason = (reason) => {
  closeDialogs();
  apply(Session.skip(session, reason), `Skip: ${reason}. Enter submits`);
};

/* ---------- zoom: one scale and offset for all images, one size of type for all texts ---------- */
const view = { scale: 1, x: 0, y: 0, open: false };
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
const fit = () => {
  if (item.samples === "texts") {
    Object.assign(view, { scale: 1, x: 0, y: 0 });
    drawZoom();
    return;
  }
  const image = paneImages()[0];
  const pane = panes.firstElementChild;
  if (!image || !image.naturalWidth) return;
  const most = Math.min(
    pane.clientWidth / image.naturalWidth,
    pane.clientHeight / image.naturalHeight,
  );
  Object.assign(view, { scale: most >= 1 ? Math.floor(most) : most, x: 0, y: 0 });
  drawZoom();
};
const scaleBy = (direction, x = 0, y = 0) => {
  if (item.samples === "texts") {
    view.scale = Math.min(2.2, Math.max(0.7, view.scale + 0.15 * direction));
    drawZoom();
    return;
  }
  const before = view.scale;
  const whole = direction > 0 ? Math.floor(before) + 1 : Math.ceil(before) - 1;
  const scaled = before >= 1 && whole >= 1 ? whole : before * (direction > 0 ? 1.25 : 0.8);
  view.scale = Math.min(32, Math.max(0.1, scaled));
  view.x = x - ((x - view.x) * view.scale) / before;
  view.y = y - ((y - view.y) * view.scale) / before;
  drawZoom();
};
const openZoom = () => {
  panes.style.setProperty("--zoom-columns", kind.panes(item.candidates.length));
  panes.replaceChildren();
  item.candidates.forEach((candidate, position) => {
    const pane = make("div", "rk-pane");
    pane.dataset.position = position;
    const shown = kind.inPane(candidate);
    shown.addEventListener("load", () => (position ? drawZoom() : fit()));
    pane.append(shown, make("span", "rk-key", position + 1), make("span", "rk-rank"));
    panes.append(pane);
  });
  zoomDialog.toggleAttribute("data-pixels", q('[data-zoom="pixels"]').ariaPressed === "true");
  q(".rk-zoom-prompt").textContent = item.prompt;
  zoomDialog.showModal();
  draw();
  fit();
};
const zoomActions = {
  in: () => scaleBy(1),
  out: () => scaleBy(-1),
  one: () => (Object.assign(view, { scale: 1, x: 0, y: 0 }), drawZoom()),
  fit,
  pixels: () => {
    const button = q('[data-zoom="pixels"]');
    const on = button.ariaPressed !== "true";
    button.ariaPressed = String(on);
    zoomDialog.toggleAttribute("data-pixels", on);
  },
  close: () => zoomDialog.close(),
};
panes.addEventListener("wheel", (event) => {
  if (item.samples === "texts") return; // it scrolls the text under it
  event.preventDefault();
  const box = event.target.closest(".rk-pane").getBoundingClientRect();
  const x = event.clientX - box.left - box.width / 2;
  const y = event.clientY - box.top - box.height / 2;
  scaleBy(event.deltaY < 0 ? 1 : -1, x, y);
}, { passive: false });
panes.addEventListener("pointerdown", (event) => {
  if (item.samples === "images") panes.setPointerCapture(event.pointerId); // texts are selected
});
panes.addEventListener("pointermove", (event) => {
  if (!panes.hasPointerCapture(event.pointerId)) return;
  moveBy(event.movementX, event.movementY);
});

/* ---------- keys, clicks, drags ---------- */
const actions = {
  bad: () => apply(Session.judgeAllBad(session), "All bad. Enter submits"),
  skip: () => q(".rk-skip").showModal(),
  tie: () => apply(Session.toggleTie(session), "Tie changed"),
  undo,
  zoom: openZoom,
  submit,
  help: () => q(".rk-help").showModal(),
  retry: () => retry?.(),
  refresh: next,
};
const put = (position) => {
  if (position >= session.count) return;
  apply(Session.place(session, position));
  say(describe(position));
};
const digitOf = (event) => {
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
  if (/^[1-9]$/.test(event.key)) return Number(event.key);
  return digit && !event.shiftKey ? Number(digit[1]) : null;
};
const isTyping = (target) =>
  target instanceof Element &&
  target.closest("input, textarea, select, [contenteditable]:not([contenteditable=false])");

const zoomKeys = { " ": "close", "+": "in", "-": "out", 0: "fit", p: "pixels" };
const pan = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };

const moveBy = (x, y) => {
  if (item.samples === "texts") {
    for (const text of panes.querySelectorAll(".rk-words")) text.scrollBy(-x, -y);
    return;
  }
  view.x += x;
  view.y += y;
  drawZoom();
};

const onKey = (event) => {
  if (!root.isConnected) {
    document.removeEventListener("keydown", onKey);
    return;
  }
  if (!session || isTyping(event.target) || event.isComposing || !root.offsetParent) return;
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (name !== "z" || event.shiftKey || event.altKey) return;
    event.preventDefault();
    if (!event.repeat) undo();
    return;
  }
  if (event.altKey) return;
  const digit = digitOf(event);
  const handled = () => event.preventDefault();
  if (q(".rk-skip").open) {
    const reason = REASONS[item.samples][digit - 1];
    if (reason) {
      handled();
      chooseReason(reason);
    }
    return;
  }
  if (q(".rk-help").open) {
    if (name === "?") q(".rk-help").close();
    return;
  }
  if (zoomDialog.open) {
    if (pan[name]) {
      handled();
      moveBy(...pan[name]);
    } else if (digit) {
      handled();
      if (!event.repeat) put(digit - 1);
    } else if (name === "=" || name === "t") {
      handled();
      if (!event.repeat) actions.tie();
    } else if (zoomKeys[name]) {
      handled();
      zoomActions[zoomKeys[name]]();
    }
    return;
  }
  // A button reached with the Tab key keeps its own Enter and Space; candidates do not need theirs.
  const active = document.activeElement;
  const own =
    active?.matches("button:focus-visible, a:focus-visible, summary") &&
    active.checkVisibility() &&
    !active.matches(".rk-put");
  if (own && (name === "Enter" || name === " ")) return;
  const keys = {
    "=": "tie", t: "tie", b: "bad", s: "skip", u: "undo", Enter: "submit", " ": "zoom", "?": "help",
  };
  if (digit) {
    handled();
    if (!event.repeat) put(digit - 1);
  } else if (keys[name]) {
    handled();
    if (!event.repeat) (retry && name === "Enter" ? actions.retry : actions[keys[name]])();
  }
};
document.addEventListener("keydown", onKey);

root.addEventListener("click", (event) => {
  const button = event.target.closest("button, .rk-tile");
  if (!button) return;
  if (event.detail > 0 && !button.matches(".rk-tile")) button.blur();
  if (button.dataset.do && (session || !["bad", "skip", "tie", "zoom", "submit"].includes(button.dataset.do))) {
    actions[button.dataset.do]();
  } else if (button.dataset.zoom) {
    zoomActions[button.dataset.zoom]();
  } else if (button.dataset.reason) {
    chooseReason(button.dataset.reason);
  } else if (button.matches(".rk-tile, .rk-put")) {
    put(Number(button.closest(".rk-tile").dataset.position));
  } else if (button.matches(".rk-thumb")) {
    apply(Session.unplace(session, Number(button.dataset.position)));
  } else if (button.matches(".rk-who")) {
    clock(false);
    session = null;
    show("welcome");
    q("#rk-name-input").focus();
  }
});

let dragged = null;
const dropTarget = (event) =>
  dragged === null ? null : event.target.closest(".rk-slot, .rk-gap[data-before], .rk-tiles");
root.addEventListener("dragstart", (event) => {
  const source = event.target.closest?.("[data-position]");
  if (!source || !session || session.verdict !== "ranked") return;
  dragged = Number(source.dataset.position);
  event.dataTransfer.effectAllowed = "move";
  event.dataTransfer.setData("text/plain", String(dragged + 1));
  const handle = source.querySelector("img, .rk-foot .rk-key");
  const middle = Math.min(30, (handle?.clientWidth ?? 0) / 2);
  if (handle) event.dataTransfer.setDragImage(handle, middle, middle);
});
const unmark = () =>
  root.querySelectorAll(".rk-over").forEach((node) => node.classList.remove("rk-over"));
root.addEventListener("dragover", (event) => {
  const target = dropTarget(event);
  unmark();
  if (!target) return;
  event.preventDefault();
  if (!target.matches(".rk-tiles")) target.classList.add("rk-over");
});
root.addEventListener("drop", (event) => {
  const target = dropTarget(event);
  if (!target) return;
  event.preventDefault();
  const { with: mate, before } = target.dataset;
  if (target.matches(".rk-tiles")) apply(Session.unplace(session, dragged));
  else if (mate !== undefined) apply(Session.tieWith(session, dragged, Number(mate)));
  else if (before !== undefined) apply(Session.insertBefore(session, dragged, Number(before)));
  else apply(Session.moveLast(session, dragged));
  say(describe(dragged));
});
root.addEventListener("dragend", () => {
  dragged = null;
  unmark();
});

document.addEventListener("visibilitychange", () => {
  if (!session) return;
  clock(!document.hidden);
  persist();
});
window.addEventListener("pagehide", () => session && persist());

q(".rk-welcome form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = q("#rk-name-input").value.trim();
  if (!name) return;
  annotator = name;
  save("annotator", annotator);
  q("#rk-name-input").blur();
  item = null;
  next();
});

annotator = load("annotator", null);
if (annotator) {
  q("#rk-name-input").value = annotator;
  next();
} else {
  show("welcome");
}
