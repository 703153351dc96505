// What keys, clicks, drags and fingers do. Of two candidates one key is a whole judgement: better,
// equal and both bad are sent at once, and undo takes them back. So it is of one: like, dislike, skip.
const decide = (after) => {
  if (closed() || withheld(after)) return;
  apply(after);
  submit();
};
const actions = {
  bad: () =>
    quick()
      ? decide(session.verdict === "all_bad" ? session : Session.judgeAllBad(session))
      : apply(Session.judgeAllBad(session), "All bad. Enter submits"),
  like: () => single() && judge(0),
  skip: () => (single() ? chooseReason("cannot judge") : q(".rk-skip").showModal()),
  tie: () =>
    quick() ? decide(Session.level(session)) : apply(Session.toggleTie(session), "Tie changed"),
  undo,
  zoom: openZoom,
  submit,
  more: () => {
    const prompt = q(zoomDialog.open ? ".rk-zoom-prompt" : ".rk-prompt");
    openPrompt(prompt, !prompt.matches("[data-open]"));
  },
  help: () => q(".rk-help").showModal(),
  votes: openVotes,
  guide: openGuidelines,
  rest: goOn,
  retry: () => retry?.(),
  refresh: next,
};
const judge = (position) => {
  if (position >= session.count || closed()) return;
  if (standing(position) === "lost") {
    reload(position);
  } else if (quick()) {
    decide(Session.prefer(session, position));
  } else if (standing(position) === "loading") {
    tellLoading();
  } else {
    apply(Session.place(session, position));
    say(describe(position));
  }
};
// A click on a single one is no like: it looks closely.
const put = (position) => {
  if (!single() || standing(position) === "lost") judge(position);
  else if (!zoomDialog.open) openZoom();
};
const chooseReason = (reason) => {
  q(".rk-skip").close();
  if (quick()) decide(Session.skip(Session.fresh(session.count), reason));
  else apply(Session.skip(session, reason), `Skip: ${reason}. Enter submits`);
};
const digitOf = (event) => {
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
  if (/^[1-9]$/.test(event.key)) return Number(event.key);
  return digit && !event.shiftKey ? Number(digit[1]) : null;
};
const isTyping = (target) =>
  target instanceof Element &&
  target.closest("input, textarea, select, [contenteditable]:not([contenteditable=false])");

// A letter by its key where the layout writes another script.
const nameOf = ({ key, code }) => {
  const letter = /^Key([A-Z])$/.exec(code);
  if (letter && key.length === 1 && !/^[ -~]$/.test(key)) return letter[1].toLowerCase();
  return key.length === 1 ? key.toLowerCase() : key;
};

const zoomKeys = { " ": "close", ...ZOOM_KEYS };
const keys = {
  "=": "tie", t: "tie", b: "bad", s: "skip", u: "undo", Enter: "submit", " ": "zoom", "?": "help",
  h: "votes", g: "guide",
};
const ofOne = { ArrowUp: "like", l: "like", ArrowDown: "bad", d: "bad", "=": null, t: null };
const WITHOUT_A_SET = ["undo", "votes", "guide", "help"]; // what can be done where nothing is left to rank

const onKey = (event) => {
  if (!root.isConnected) {
    document.removeEventListener("keydown", onKey);
    return;
  }
  if (!["ranking", "empty"].includes(root.dataset.state) || !root.offsetParent) return;
  if (isTyping(event.target) || event.isComposing) return;
  const name = nameOf(event);
  if (event.ctrlKey || event.metaKey) {
    if (votesDialog.open || q(".rk-guide").open) return;
    if (name !== "z" || event.shiftKey || event.altKey) return;
    event.preventDefault();
    if (!event.repeat) undo();
    return;
  }
  if (event.altKey) return;
  const digit = digitOf(event);
  const handled = () => event.preventDefault();
  if (votesDialog.open) {
    if ((!event.repeat || name.startsWith("Arrow")) && onVotesKey(name)) handled();
    return;
  }
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
  if (q(".rk-guide").open) {
    if (name === "g") q(".rk-guide").close();
    return;
  }
  if (event.repeat && !PAN_KEYS[name] && !"+-".includes(name)) {
    if (digit || keys[name]) handled();
    return;
  }
  // A button reached with the Tab key keeps its own Enter and Space.
  const active = document.activeElement;
  const own = active?.matches("button:focus-visible, a:focus-visible, summary") && active.checkVisibility();
  if (own && (name === "Enter" || name === " ")) return;
  if (!session) {
    if (WITHOUT_A_SET.includes(keys[name])) {
      handled();
      actions[keys[name]]();
    }
  } else if (digit) {
    handled();
    judge(digit - 1);
  } else if (zoomDialog.open && PAN_KEYS[name]) {
    handled();
    moveBy(...PAN_KEYS[name]);
  } else if (zoomDialog.open && zoomKeys[name]) {
    handled();
    zoomActions[zoomKeys[name]]();
  } else if (single() && name in ofOne) {
    handled();
    if (!event.repeat) actions[ofOne[name]]?.();
  } else if (keys[name]) {
    handled();
    (retry && name === "Enter" ? actions.retry : actions[keys[name]])();
  }
};
document.addEventListener("keydown", onKey);

root.addEventListener("click", (event) => {
  const button = event.target.closest("button, .rk-tile");
  if (!button) return;
  if (event.detail > 0) button.blur(); // what has the focus was reached by keyboard
  if (button.dataset.do && (session || !["bad", "like", "skip", "tie", "zoom", "submit"].includes(button.dataset.do))) {
    actions[button.dataset.do]();
  } else if (button.dataset.project) {
    goTo(button.dataset.project);
  } else if (button.dataset.vote) {
    correct(button.dataset.vote);
  } else if (button.dataset.votes) {
    turnVotes[button.dataset.votes]();
  } else if (button.dataset.zoom) {
    zoomActions[button.dataset.zoom]();
  } else if (button.dataset.reason) {
    chooseReason(button.dataset.reason);
  } else if (button.matches(".rk-tile, .rk-put")) {
    put(Number(button.closest(".rk-tile").dataset.position));
  } else if (button.matches(".rk-thumb")) {
    apply(Session.unplace(session, Number(button.dataset.position)));
  } else if (button.matches(".rk-who")) {
    if (busy) return; // the answer is for who ranks now
    clock(false);
    session = null;
    welcome();
    q("#rk-name-input").focus();
  }
});

/* ---------- dragging: by mouse as browsers do it, by a finger on our own ---------- */
let dragged = null;
const TARGETS = ".rk-slot, .rk-gap[data-before], .rk-gap[data-last], .rk-tiles";
const dropTarget = (node) => (dragged === null ? null : node?.closest(TARGETS));
const canDrag = (node) => {
  const source = node.closest?.("[data-position]");
  if (!source || !session || session.verdict !== "ranked" || quick()) return null;
  return standing(Number(source.dataset.position)) === "shown" ? source : null;
};
const unmark = () =>
  root.querySelectorAll(".rk-over").forEach((node) => node.classList.remove("rk-over"));
const markOver = (target) => {
  unmark();
  if (target && !target.matches(".rk-tiles")) target.classList.add("rk-over");
};
const dropOn = (target) => {
  const { with: mate, before } = target.dataset;
  if (target.matches(".rk-tiles")) apply(Session.unplace(session, dragged));
  else if (mate !== undefined) apply(Session.tieWith(session, dragged, Number(mate)));
  else if (before !== undefined) apply(Session.insertBefore(session, dragged, Number(before)));
  else apply(Session.moveLast(session, dragged));
  say(describe(dragged));
};
root.addEventListener("dragstart", (event) => {
  const source = canDrag(event.target);
  if (!source) {
    if (event.target.closest?.("[data-position]")) event.preventDefault();
    return;
  }
  dragged = Number(source.dataset.position);
  event.dataTransfer.effectAllowed = "move";
  event.dataTransfer.setData("text/plain", String(dragged + 1));
  const handle = source.querySelector("img, .rk-foot .rk-key");
  const middle = Math.min(30, (handle?.clientWidth ?? 0) / 2);
  if (handle) event.dataTransfer.setDragImage(handle, middle, middle);
});
root.addEventListener("dragover", (event) => {
  const target = dropTarget(event.target);
  markOver(target);
  if (target) event.preventDefault();
});
root.addEventListener("drop", (event) => {
  const target = dropTarget(event.target);
  if (!target) return;
  event.preventDefault();
  dropOn(target);
});
root.addEventListener("dragend", () => {
  dragged = null;
  unmark();
});

// A finger scrolls the page from a tile, and drags what is in the ranking.
let finger = null; // {id, x, y, source, ghost, at: where it was last}
const under = (event) => dropTarget(document.elementFromPoint(event.clientX, event.clientY));
const EDGE = 48; // pixels from an end of the tray within which what is dragged scrolls it
const MOST_STEP = 9; // pixels a frame, as soon as it is at the end
const pull = (at, from, to) => {
  const beyond = Math.max(0, at - (to - EDGE)) - Math.max(0, from + EDGE - at);
  return Math.max(-MOST_STEP, Math.min(MOST_STEP, Math.round((MOST_STEP * beyond) / EDGE)));
};
// A finger that is held still sends nothing, so this looks at each frame.
const scrollTray = () => {
  if (!finger?.ghost) return;
  const { clientX: x, clientY: y } = finger.at;
  const tray = q(".rk-tray");
  const { left, right, top, bottom } = tray.getBoundingClientRect();
  if (x > left - EDGE && x < right + EDGE && y > top - EDGE && y < bottom + EDGE) {
    tray.scrollBy(pull(x, Math.max(left, 0), Math.min(right, innerWidth)), pull(y, top, bottom));
    markOver(under(finger.at));
  }
  requestAnimationFrame(scrollTray);
};
q(".rk-tray").addEventListener("pointerdown", (event) => {
  const source = event.target.closest(".rk-thumb");
  if (event.pointerType === "mouse" || finger || !source || !canDrag(source)) return;
  finger = { id: event.pointerId, x: event.clientX, y: event.clientY, source, ghost: null };
});
document.addEventListener("pointermove", (event) => {
  if (event.pointerId !== finger?.id) return;
  const [x, y] = [event.clientX - finger.x, event.clientY - finger.y];
  if (!finger.ghost && Math.hypot(x, y) < 8) return;
  finger.at = event;
  if (!finger.ghost) {
    const box = finger.source.getBoundingClientRect();
    finger.ghost = finger.source.cloneNode(true);
    finger.ghost.classList.add("rk-ghost");
    Object.assign(finger.ghost.style, { left: `${box.left}px`, top: `${box.top}px` });
    root.append(finger.ghost);
    dragged = Number(finger.source.dataset.position);
    requestAnimationFrame(scrollTray);
  }
  finger.ghost.style.transform = `translate(${x}px, ${y}px)`;
  markOver(under(event));
});
const drop = (event) => {
  if (event.pointerId !== finger?.id) return;
  const target = finger.ghost && event.type === "pointerup" && under(event);
  finger.ghost?.remove();
  if (target) dropOn(target);
  finger = dragged = null;
  unmark();
};
document.addEventListener("pointerup", drop);
document.addEventListener("pointercancel", drop);

// The bar of addresses of a phone comes and goes as one scrolls: images stay as they are then.
const BAR = 130; // pixels that it is high at most
let arranged = { width: innerWidth, height: innerHeight };
addEventListener("resize", () => {
  const { width, height } = arranged;
  if (byTouch() && width === innerWidth && Math.abs(height - innerHeight) < BAR) return;
  arranged = { width: innerWidth, height: innerHeight };
  arrange();
  if (!session) return;
  for (const prompt of promptPlaces()) if (!prompt.matches("[data-open]")) openPrompt(prompt, false);
});

// On a phone the buttons lie over the end of the page, which is as much longer for it as they are high.
new ResizeObserver(() => {
  const high = q(".rk-actions").offsetHeight;
  if (high && !zoomDialog.open) root.style.setProperty("--bar", `${high}px`);
}).observe(q(".rk-actions"));

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

// Who comes before there is anything to rank is told so before being asked for a name.
const tellNothing = async () => {
  clearTimeout(tellNothing.timer);
  if (!root.isConnected || root.dataset.state !== "welcome") return;
  try {
    const response = await fetch(new URL("api/rank/queued", document.baseURI));
    const { queued } = await response.json();
    q(".rk-nothing").hidden = queued !== false;
  } catch {
    // the first set is asked for with the name, which says what is wrong
  }
  if (!q(".rk-nothing").hidden) tellNothing.timer = setTimeout(tellNothing, LOOK_AGAIN_MS);
};
const welcome = () => {
  show("welcome");
  tellNothing();
};

// With accounts the session says who ranks, and nobody types a name.
const whoRanks = async () => {
  try {
    const response = await fetch(new URL("api/account", document.baseURI));
    const { name, role } = await response.json();
    if (!name) return load("annotator", null);
    if (role === "annotator") document.querySelector("header.top nav")?.remove(); // they are for leads
    root.dataset.account = name;
    root.dataset.role = role;
    return name;
  } catch {
    return load("annotator", null);
  }
};

q(".rk-begin").hidden = !props.making;
q(".rk-nothing .rk-demo").hidden = !props.demo;
project = firstProject();
loadGuidelines();
whoRanks().then((name) => {
  annotator = name;
  if (annotator) {
    q("#rk-name-input").value = annotator;
    next();
  } else {
    welcome();
  }
});
