// The ranking widget: draws one item, keeps its draft and talks to the server. Looking closely is in
// zoom.js, the list of one's own votes in votes.js, guidelines and breaks in rest.js, what keys,
// mouse and fingers do in hands.js.
// Nothing is shown as saved before the server's receipt has arrived; what is not submitted yet lives
// in the browser's storage and survives a reload and a server restart.
const root = element.querySelector(".rk");
const q = (selector) => root.querySelector(selector);
const REASONS = props.reasons;
const STORE = "imgalign.rank";
const TIMEOUT_MS = 15000;
const LOOK_AGAIN_MS = 10000;
const AHEAD_MS = 20000; // a set that is held for less than this is asked for anew
const PHONE = 720; // pixels, as in ranker.css

let annotator = null; // who ranks
let project = null; // where; null is what the app begins with
let item = null; // what the server gave: {item, prompt, samples: "images" or "texts",
// candidates: [{token, url}], done, total, after: the coming set, until: when it is given away,
// undo: the key of the latest judgement that can be taken back}
let kind = Candidates.images; // how candidates of this item are drawn
let session = null; // the ranking in the making
let key = null; // idempotency key of this judgement, made once per item shown
let busy = false;
let retry = null; // what "Try again" repeats
let looked = 0; // milliseconds this item was in view before `since`
let since = null;

/* ---------- browser storage ---------- */
const kept = new Map(); // what storage refuses, where a browser blocks it
const load = (name, fallback) => {
  try {
    return JSON.parse(localStorage.getItem(`${STORE}.${name}`)) ?? kept.get(name) ?? fallback;
  } catch {
    return kept.get(name) ?? fallback;
  }
};
const save = (name, value) => {
  try {
    localStorage.setItem(`${STORE}.${name}`, JSON.stringify(value));
  } catch {
    kept.set(name, value);
  }
};
const slot = (name) => `${name}.${annotator}`;

// One draft for each item, so that going back to an older one loses none in between.
const MOST_DRAFTS = 40;
const drafts = () => {
  const found = load(slot("drafts"), {});
  const one = load(slot("draft"), null); // as pages before this one kept it
  return one?.item ? { [one.item]: one, ...found } : found;
};
const saveDraft = (id, draft) => {
  const { [id]: _, ...others } = drafts();
  const entries = [...Object.entries(others), ...(draft ? [[id, draft]] : [])];
  save(slot("drafts"), Object.fromEntries(entries.slice(-MOST_DRAFTS)));
  save(slot("draft"), null);
};

const newKey = () => {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
};

const viewed = () => Math.round(looked + (since === null ? 0 : performance.now() - since));
const clock = (running) => {
  if (since !== null) looked += performance.now() - since;
  since = running ? performance.now() : null;
};
const persist = () => saveDraft(item.item, { item: item.item, key, session, looked: viewed() });
// Of two, and of one, one key is the whole judgement.
const quick = () => item?.candidates?.length <= 2;
const single = () => item?.candidates?.length === 1;
const byTouch = () => matchMedia("(pointer: coarse)").matches;

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
    error.refused = response.status === 422;
    if (response.status === 401) location.assign(new URL("enter", document.baseURI));
    throw error;
  }
  return answer;
};

/* ---------- drawing ---------- */
const capital = (word) => word[0].toUpperCase() + word.slice(1);
const ordinal = (n) => ["1st", "2nd", "3rd"][n - 1] ?? `${n}th`;
const show = (state) => {
  root.dataset.state = state;
};
const say = (text) => {
  q(".rk-sr[aria-live]").textContent = text;
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
  const shown = kind.inTile(candidate);
  shown.addEventListener("load", arrange);
  tile.append(shown, foot);
  return tile;
};

// What could not be loaded cannot be judged; a click on it tries once more.
const unloaded = (position) => q(`.rk-tile[data-position="${position}"] .rk-broken`);
const reload = (position) => {
  const old = q(`.rk-tile[data-position="${position}"]`);
  old.replaceWith(tileOf(item.candidates[position], position));
  calm();
  draw();
};

const drawItem = () => {
  const count = item.candidates.length;
  root.dataset.samples = item.samples;
  kind = Candidates[item.samples];
  for (const node of root.querySelectorAll("[data-noun]")) {
    node.textContent = kind.noun + node.dataset.noun;
  }
  drawReasons();
  root.toggleAttribute("data-quick", quick());
  root.toggleAttribute("data-single", single());
  const better = quick() ? "better" : "best";
  q(".rk-question").textContent = single() ? `Do you like this ${kind.noun}?` : `Which ${kind.noun} fits this ${better}?`;
  q('.rk-actions [data-do="tie"]').firstChild.data = quick() ? "Equal " : "Tie ";
  const bad = q('.rk-actions [data-do="bad"]');
  bad.firstChild.data = single() ? "Dislike " : quick() ? "Both bad " : "All bad ";
  bad.lastChild.textContent = single() ? "↓" : "B";
  const prompt = q(".rk-prompt");
  prompt.textContent = item.prompt;
  prompt.toggleAttribute("data-long", item.prompt.length > 160);
  openPrompt(false);
  const tiles = q(".rk-tiles");
  tiles.style.removeProperty("--tile-width");
  tiles.style.setProperty("--columns", kind.columns(count));
  tiles.style.setProperty("--tile-height", kind.height(count));
  tiles.replaceChildren(...item.candidates.map(tileOf));
  q(".rk-last-key").textContent = count;
};

// A prompt longer than its place is cut, and says so.
const openPrompt = (open) => {
  const prompt = q(".rk-prompt");
  prompt.toggleAttribute("data-open", open);
  prompt.toggleAttribute("data-cut", !open && prompt.scrollHeight > prompt.clientHeight + 2);
  const more = q(".rk-more");
  more.hidden = !open && !prompt.matches("[data-cut]");
  more.setAttribute("aria-expanded", String(open));
  more.textContent = open ? "Show less" : "Show the whole prompt";
};

// Images as large as the screen allows, in the columns that make them largest.
const arrange = () => {
  if (!session || item.samples === "texts") return;
  const tiles = q(".rk-tiles");
  const first = tiles.querySelector("img");
  const aspect = first?.naturalWidth ? first.naturalWidth / first.naturalHeight : 1;
  tiles.style.setProperty("--aspect", aspect);
  if (innerWidth <= PHONE) return;
  const above = tiles.getBoundingClientRect().top + scrollY;
  const below = q(".rk-tray").offsetHeight + q(".rk-actions").offsetHeight + q(".rk-rest").offsetHeight + 44;
  const [across, down] = [16, 60]; // a tile beside its image: padding, and the foot below it
  const found = Candidates.grid(item.candidates.length, {
    width: q(".rk-work").clientWidth, height: Math.max(innerHeight - above - below, 220), gap: 14, aspect, across, down,
  });
  tiles.style.setProperty("--columns", found.columns);
  tiles.style.setProperty("--tile-width", `${Math.floor(found.width) + across}px`);
  tiles.style.setProperty("--tile-height", "none");
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
  // One place for all that are left: whatever is dropped there takes the next rank.
  const left = Session.missing(session);
  const end = make("span", "rk-gap", groups.length && left.length ? "›" : "");
  end.dataset.last = "";
  nodes.push(end);
  if (left.length) {
    const place = make("div", "rk-slot rk-free");
    place.dataset.last = "";
    const row = make("div");
    row.append(...left.map(() => make("span", "rk-place")));
    place.append(make("b", "", ordinal(groups.length + 1)), row);
    nodes.push(place);
  }
  tray.replaceChildren(...nodes);
};

const hint = () => {
  const touch = byTouch();
  if (busy) return "Saving…";
  const left = Session.missing(session).length;
  if (single()) return touch ? "Like or dislike" : "↑ likes, ↓ dislikes, S skips";
  if (quick() && session.verdict === "ranked" && left) {
    return touch ? "Tap the better one" : "Press 1 or 2: the better one";
  }
  if (session.verdict !== "ranked" || left === 0) return touch ? "Ready to submit" : "Enter submits";
  if (left === 1) return touch ? "Submit places the last one" : "Enter places the last one";
  if (left < item.candidates.length) return `${left} still to place`;
  return touch ? "Tap the best first" : "Press a number: best first";
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
  q('.rk-actions [data-do="tie"]').disabled = session.placed.length < 2 && !quick();
  q('.rk-actions [data-do="undo"]').disabled = !session.past.length && !item.undo;
  q(".rk-submit").disabled = busy;
  q(".rk-submit").toggleAttribute("data-unready", !Session.ready(session));
  q(".rk-hint").textContent = hint();
};

const drawProgress = () => {
  const { done, total } = item;
  document.title = total ? `${done} of ${total} - Rank - imgalign` : "Rank - imgalign";
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
  const first = item.qualifying ? `, the next ${item.qualifying} to qualify` : "";
  q(".rk-count").textContent = total ? `${done} of ${total}${first || estimate}` : "";
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

// Whether the server answered.
const next = async () => {
  clearTimeout(next.timer);
  q(".rk-who").textContent = annotator;
  try {
    const given = await call("next", { annotator, project });
    calm();
    receive(given);
    showGuidelines();
    showProjects(given.project);
    return true;
  } catch (error) {
    if (error.refused && forgetProject()) return next();
    if (!item) show("loading");
    complain(`${error.message} Nothing you submitted is lost.`, next);
    next.timer = setTimeout(() => retry === next && next(), 4000);
    return false;
  }
};

// New items come to an empty page by themselves, while somebody looks at it.
const lookAgain = () => {
  if (!root.isConnected || root.dataset.state !== "empty") return;
  if (document.hidden) next.timer = setTimeout(lookAgain, LOOK_AGAIN_MS);
  else next();
};

// The coming set of an answer, with the time until which it is held for this annotator.
const expect = (coming) => {
  item.after = coming;
  item.until = coming ? performance.now() + (coming.seconds ?? 0) * 1000 : 0;
  if (coming) Candidates.prefetch(coming);
};

// After a judgement is on disk the coming set, which is here already, needs no further answer to be
// shown. What comes after it is asked for meanwhile. A set that is shown is never exchanged for
// another by itself, since a key may be on its way to it: the store takes a judgement of any set that
// it gave out.
const goOnAhead = () => {
  const { after, until, done, total, waiting, qualifying } = item;
  if (!after || performance.now() + AHEAD_MS > until) return false;
  const left = Math.max(0, (qualifying ?? 0) - 1);
  receive({ ...after, done: done + 1, total, waiting, qualifying: left, after: null, undo: key });
  refresh();
  return true;
};
const refresh = async () => {
  const shown = item;
  let given;
  try {
    given = await call("next", { annotator, project });
  } catch {
    return; // the next judgement asks again, and says so where that fails
  }
  // While a judgement is under way these numbers may count it already.
  if (busy || item !== shown || given.item !== item.item) return;
  item.done = given.done;
  item.total = given.total;
  item.waiting = given.waiting;
  item.qualifying = given.qualifying;
  item.undo = given.undo;
  drawProgress();
  expect(given.after);
};

const receive = (given) => {
  item = given;
  drawProgress();
  const zoomed = zoomDialog.open;
  closeDialogs();
  if (!item.item) {
    const waiting = `${item.waiting} more ${item.waiting === 1 ? "is" : "are"} with other annotators now`;
    if (item.held) {
      q(".rk-empty-title").textContent = "Thank you, that is all for you here";
      q(".rk-empty-text").textContent = "Too many of your first judgements differ from what the lead of this project looks for. They are kept. If you think that this is a mistake, ask the lead.";
    } else if (item.waiting) {
      q(".rk-empty-title").textContent = "Nothing free right now";
      q(".rk-empty-text").textContent = `${waiting}; what they leave comes to this page by itself.`;
    } else {
      q(".rk-empty-title").textContent = item.done ? "All done, thank you" : "Nothing to rank yet";
      q(".rk-empty-text").textContent = item.done
        ? `You have judged all ${item.done}. New ones appear here as soon as they are made.`
        : "What is made to be ranked appears here by itself.";
    }
    const elsewhere = item.waiting > 0 || item.held || root.dataset.role === "annotator";
    q(".rk-make").hidden = !props.making || elsewhere;
    q(".rk-make").textContent = item.done ? "Make more candidates" : "Make candidates";
    q(".rk-learn").hidden = !props.learning || elsewhere || !item.done;
    next.timer = setTimeout(lookAgain, LOOK_AGAIN_MS);
    offerProjects();
    q('.rk-empty [data-do="undo"]').hidden = !item.undo || item.held;
    session = null;
    clock(false);
    show("empty");
    return;
  }
  const draft = drafts()[item.item];
  const mine = draft && draft.session?.count === item.candidates.length;
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
  arrange();
  if (zoomed) openZoom();
  else if (document.activeElement === document.body) q(".rk-prompt").focus({ preventScroll: true });
  say(`${item.prompt}. ${single() ? `One ${kind.noun}` : `${item.candidates.length} ${kind.noun}s`}.`);
  expect(item.after);
};

const submit = async () => {
  if (!session || busy) return;
  const lost = item.candidates.findIndex((_, position) => unloaded(position));
  if (lost >= 0 && session.verdict === "ranked") {
    complain(`${capital(kind.noun)} ${lost + 1} could not be loaded, so it cannot be ranked. Skip this set, or`, () => reload(lost));
    return;
  }
  if (single() && !Session.ready(session)) {
    say(hint());
    return;
  }
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
    if (error.gone) {
      // It may be final. Asking for the next set settles that, and gives back the same draft
      // where the set is still open, to be sent as a judgement of its own.
      key = newKey();
      persist();
      complain("Not saved: this set was judged already, perhaps in another tab. Go on to the next one.", next);
    } else {
      complain(`Not saved yet: ${error.message} Your ranking is kept here.`, submit);
    }
    return;
  }
  busy = false;
  saveDraft(item.item, null);
  const times = load(slot("times"), []);
  save(slot("times"), [...times, Math.min(milliseconds, 120000)].slice(-20));
  toast("Saved");
  noteWork(Math.min(milliseconds, 120000));
  suggestRest();
  if (!goOnAhead()) await next();
  if (votesDialog.open) openVotes();
};

// Takes a judgement back; its set is the next one, with what was judged as its draft.
const takeBack = async (judged) => {
  busy = true;
  if (session) persist();
  try {
    const back = await call("undo", { annotator, key: judged });
    const again = Session.restored(back.num_candidates, back);
    saveDraft(back.item, { item: back.item, key: newKey(), session: again, looked: 0 });
    toast("Taken back. Submit it to count again");
    return back;
  } finally {
    busy = false;
  }
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
  try {
    await takeBack(item.undo);
  } catch (error) {
    complain(error.message, error.gone ? next : undo);
    return;
  }
  await next();
};

/* ---------- dialogs ---------- */
// Those about the set on screen; the list of votes stays open when another set comes.
const closeDialogs = () => {
  for (const dialog of root.querySelectorAll("dialog[open]:not(.rk-votes)")) dialog.close();
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
