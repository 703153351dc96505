// The ranking widget: draws one item and talks to the server. What is not sent yet, or was sent
// without an answer, is in drafts.js, looking closely in zoom.js, the list of one's own votes in
// votes.js, guidelines and breaks in rest.js, what keys, mouse and fingers do in hands.js.
// Nothing is shown as saved before the server's receipt has arrived; what is not submitted yet lives
// in the browser's storage and survives a reload and a server restart.
const root = element.querySelector(".rk");
const q = (selector) => root.querySelector(selector);
const REASONS = props.reasons;
const STORE = "imgalign.rank";
const TIMEOUT_MS = 15000;
const LOOK_AGAIN_MS = 10000;
const AHEAD_MS = 20000; // a set that is held for less than this is asked for anew
const MOST_WAITS = 10; // times that one request is sent again to a server that says when
const PHONE = 720; // pixels, as in ranker.css

let annotator = null; // who ranks
let project = null; // where; null is what the app begins with, and `item.project` says which that is
let item = null; // what the server gave: {item, prompt, samples: "images" or "texts",
// candidates: [{token, url}], done, total, after: the coming sets, each with `until`, when it is given
// away, undo: the key of the latest judgement that can be taken back, judged: its receipt is here}
let kind = Candidates.images; // how candidates of this item are drawn
let session = null; // the ranking in the making
let attempt = null; // {key, sent, replaces}: how this judgement is sent, as drafts.js says
let busy = ""; // what is waited for, as the page says it; keys do nothing meanwhile
let retry = null; // what the button beside a complaint does
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

const newKey = () => {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
};

const viewed = () => Math.round(looked + (since === null ? 0 : performance.now() - since));
const clock = (running) => {
  if (since !== null) looked += performance.now() - since;
  since = running ? performance.now() : null;
};
const persist = () => {
  if (!item.judged) saveDraft(item, { ...attempt, session, looked: viewed(), project: item.project });
};
// The name of the set on the screen, which is another one since the server was upgraded.
const rename = (set, name) => {
  if (set.item === name) return;
  set.item = name;
  persist();
};
// Whether the set on the screen takes no judgement now: an answer is waited for, or it is judged and
// the next one could not be had yet. What is pressed then is meant for no other set either.
const closed = () => Boolean(busy || item?.judged);
// Of two, and of one, one key is the whole judgement.
const quick = () => item?.candidates?.length <= 2;
const single = () => item?.candidates?.length === 1;
const byTouch = () => matchMedia("(pointer: coarse)").matches;

/* ---------- server ---------- */
// What a refusal means to whoever ranks. The words of the store are for those who run the app, and
// go to the console of the browser.
const NOT_YOURS = "That vote cannot be taken back: it is not among yours.";
const REFUSALS = {
  next: {
    409: "Many new names came from here within an hour. Take one of them, or try again later.",
    422: "This name cannot be used. Choose another one.",
  },
  undo: { 409: NOT_YOURS, 410: NOT_YOURS },
  votes: { 409: "Your votes have changed meanwhile." },
};
const ANY_REFUSAL = {
  401: "You are not logged in any more.",
  403: "Another account is logged in in this browser. Reload the page.",
  409: "That has changed meanwhile, perhaps in another tab.",
  422: "The server does not take what this page sent. Reload the page.",
  429: "That was too often at once. Wait a few seconds.",
  503: "The server cannot read or save anything right now.",
  507: "The disk of the server is full. Tell whoever runs it.",
};
const refusal = (path, status) =>
  REFUSALS[path]?.[status] ?? ANY_REFUSAL[status] ?? `The server has a fault (${status}). Tell whoever runs it.`;
const post = async (path, body) => {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), TIMEOUT_MS);
  try {
    const response = await fetch(new URL(`api/rank/${path}`, document.baseURI), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: abort.signal,
    });
    return [response, await response.json()];
  } catch {
    throw new Error("The server cannot be reached.");
  } finally {
    clearTimeout(timer);
  }
};
// Who is faster than the server allows waits as long as it says; what was sent is sent again as it was.
const waitFor = (seconds) => {
  if (busy) busy = "That was very fast. Going on in a moment…";
  if (busy && session) draw();
  return new Promise((go) => setTimeout(go, 1000 * seconds));
};
const call = async (path, body, waits = MOST_WAITS) => {
  const [response, answer] = await post(path, body);
  const seconds = Number(response.headers.get("Retry-After"));
  if (response.status === 429 && seconds && waits) {
    await waitFor(seconds);
    return call(path, body, waits - 1);
  }
  if (!response.ok) {
    console.warn(`${path}: ${answer.error}`);
    const error = new Error(refusal(path, response.status));
    error.gone = [409, 410].includes(response.status);
    error.unknown = response.status === 410; // the server knows no such set of this annotator
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
const toast = (text, mark = "✓") => {
  const node = q(".rk-toast");
  node.dataset.mark = mark;
  node.textContent = text;
  node.classList.add("rk-on");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => node.classList.remove("rk-on"), 1600);
};
const GO_ON = "Go on to the next one";
const complain = (text, again, label = "Try again") => {
  retry = again;
  q('[data-do="retry"]').textContent = label;
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
  for (const event of ["load", "error"]) shown.addEventListener(event, drawSeen);
  tile.append(shown, foot);
  return tile;
};

// A judgement of what nobody saw says nothing: a set with a candidate that is still loading, or that
// could not be loaded, takes a skip and nothing else. Seen is what is seen where one looks: on the
// page, or in the zoom that covers it.
const drawSeen = () => session && draw();
const standing = (position) =>
  Candidates.standing(q(`${zoomDialog.open ? ".rk-pane" : ".rk-tile"}[data-position="${position}"]`));
const inState = (wanted) =>
  item.candidates.map((_, position) => position).filter((position) => standing(position) === wanted);
const stillLoading = () => {
  const waiting = inState("loading");
  if (waiting.length < 2) return waiting.length ? `${capital(kind.noun)} ${waiting[0] + 1} is still loading` : "";
  return `${waiting.length} ${kind.noun}s are still loading`;
};
const tellLoading = () => {
  toast(stillLoading(), "…");
  say(`${stillLoading()}. Judge once you see everything, or skip`);
};
// Whether it takes this judgement not yet; the page says why.
const withheld = (wanted) => {
  if (wanted.verdict === "skipped") return false;
  const [lost] = inState("lost");
  if (lost !== undefined) {
    complain(`${capital(kind.noun)} ${lost + 1} could not be loaded, so it cannot be judged. Skip this set, or`, () => reload(lost));
    return true;
  }
  if (!stillLoading()) return false;
  tellLoading();
  return true;
};
// A click on what was lost tries once more, which says nothing about what is waited for.
const reload = (position) => {
  if (closed()) return;
  const old = q(`.rk-tile[data-position="${position}"]`);
  old.replaceWith(tileOf(item.candidates[position], position));
  calm();
  if (zoomDialog.open) openZoom();
  else draw();
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
  for (const prompt of promptPlaces()) {
    prompt.textContent = item.prompt;
    prompt.toggleAttribute("data-long", item.prompt.length > 160);
    openPrompt(prompt, false);
  }
  const tiles = q(".rk-tiles");
  tiles.style.removeProperty("--tile-width");
  q(".rk-board").removeAttribute("data-tray");
  q(".rk-board").removeAttribute("data-foot");
  tiles.style.setProperty("--columns", kind.columns(count));
  tiles.style.setProperty("--tile-height", kind.height(count));
  tiles.replaceChildren(...item.candidates.map(tileOf));
  q(".rk-last-key").textContent = count;
};

// A prompt longer than its place is cut, and says so: on the page and in the zoom.
const promptPlaces = () => [".rk-prompt", ".rk-zoom-prompt"].map(q);
const isCut = (prompt) => prompt.scrollHeight > prompt.clientHeight + 2;
const openPrompt = (prompt, open) => {
  const more = q(`[aria-controls="${prompt.id}"]`);
  prompt.toggleAttribute("data-open", open);
  prompt.toggleAttribute("data-cut", !open && isCut(prompt));
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
  const phone = innerWidth <= PHONE;
  const board = q(".rk-board");
  const above = board.getBoundingClientRect().top + scrollY;
  // As they are drawn: on a very large screen they are magnified.
  const [actions, rest] = [".rk-actions", ".rk-rest"].map((each) => q(each).getBoundingClientRect().height);
  const below = actions + rest + (phone ? 8 : 28);
  const screen = innerHeight - actions - 16;
  const found = Candidates.layout(item.candidates.length, {
    width: board.clientWidth, height: innerHeight - above - below, screen, aspect, scrolls: phone,
    ...(phone ? { padding: 5, gap: 8 } : { padding: 8, gap: 12 }),
  });
  board.dataset.tray = found.tray;
  board.dataset.foot = found.foot;
  board.style.setProperty("--thumb", found.thumb ? `${found.thumb}px` : "");
  tiles.style.setProperty("--columns", found.columns);
  tiles.style.setProperty("--tile-width", `${Math.floor(found.width) + found.across}px`);
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
    tray.replaceChildren();
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

// What is said instead of a ranking, above the buttons, wherever these are.
const drawVerdict = () => {
  const said = {
    all_bad: byTouch() ? "All bad" : "All bad. Enter submits, B takes it back",
    skipped: `Skip, ${session.reason}${byTouch() ? "" : ". Enter submits, S changes the reason"}`,
  }[session.verdict];
  const verdict = q(".rk-verdict");
  verdict.hidden = !said || closed();
  verdict.textContent = said ?? "";
};

const hint = () => {
  const touch = byTouch();
  if (item.judged) return busy ? "Saved. The next one is coming…" : "Saved";
  if (busy) return busy;
  if (session.verdict !== "skipped" && stillLoading()) return stillLoading();
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
  root.toggleAttribute("data-judged", Boolean(item.judged));
  for (const node of root.querySelectorAll(".rk-tile, .rk-pane")) {
    const position = Number(node.dataset.position);
    const placed = rankOf(position);
    const ranked = session.verdict === "ranked" && placed;
    const loading = Candidates.standing(node) === "loading";
    node.setAttribute("aria-busy", String(loading));
    node.querySelector(".rk-rank").textContent = ranked
      ? `${placed.tied ? "=" : ""}${ordinal(placed.rank)}`
      : "";
    if (node.matches(".rk-tile")) {
      const put = node.closest(".rk-put") ?? node.querySelector(".rk-put");
      put.setAttribute("aria-pressed", String(Boolean(ranked)));
      put.setAttribute("aria-label", `${describe(position)}${loading ? ", still loading" : ""}. Key ${position + 1}`);
      node.classList.toggle("rk-placed", Boolean(ranked));
    }
  }
  drawTray();
  drawVerdict();
  q('[data-do="bad"]').setAttribute("aria-pressed", String(session.verdict === "all_bad"));
  q('[data-do="skip"]').setAttribute("aria-pressed", String(session.verdict === "skipped"));
  q('.rk-actions [data-do="tie"]').disabled = session.placed.length < 2 && !quick();
  q('.rk-actions [data-do="undo"]').disabled = !session.past.length && !item.undo;
  q(".rk-submit").disabled = Boolean(busy);
  q(".rk-submit").toggleAttribute("data-unready", !Session.ready(session) || (session.verdict !== "skipped" && Boolean(stillLoading())));
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
  if (closed() || after === session) return;
  session = after;
  persist();
  calm();
  draw();
  if (announce !== undefined) say(announce);
};

// Whether the server answered. Until then the set on the screen is closed: what is pressed would be
// for one that goes away. Where it is asked again meanwhile, the older answer comes too late. With
// `settling` it first sees to what was left without an answer, which may bring another set back.
const next = async (settling = true) => {
  clearTimeout(next.timer);
  const mine = (next.number = (next.number ?? 0) + 1);
  busy = "Loading…";
  if (session) draw();
  q(".rk-who").textContent = annotator;
  let given;
  try {
    given = await call("next", { annotator, project });
  } catch (error) {
    if (mine !== next.number) return false;
    busy = "";
    if (error.refused && forgetProject()) return next();
    if (session) draw();
    const named = (error.refused || error.gone) && !root.dataset.account;
    if (!item && named) welcome();
    else if (!item) show("loading");
    const closed = error.refused && root.dataset.account; // whose name is not in question
    const said = closed ? "No project is open to you now. One that is opened comes to this page by itself." : error.message;
    complain(named ? said : `${said} Nothing you submitted is lost.`, next);
    if (!named) next.timer = setTimeout(() => retry === next && next(), 4000);
    return false;
  }
  if (mine !== next.number) return false;
  if (settling && (await settle(given)) && mine === next.number) return next(false);
  if (mine !== next.number) return false;
  busy = "";
  calm();
  receive(given);
  showGuidelines();
  showProjects(given.project);
  return true;
};

// New items come to an empty page by themselves, while somebody looks at it.
const lookAgain = () => {
  if (!root.isConnected || root.dataset.state !== "empty") return;
  if (document.hidden) next.timer = setTimeout(lookAgain, LOOK_AGAIN_MS);
  else next();
};

// The coming sets of an answer, with the time until which each is held for this annotator: after that
// the server gives it to whoever asks. Nobody needs to give one back.
const expect = (coming) => {
  const now = performance.now();
  item.after = coming.map((each) => ({ until: now + each.seconds * 1000, ...each }));
  Candidates.prefetch(item.after);
};

// After a judgement is on disk the coming set, which is here already, needs no further answer to be
// shown. What comes after it is asked for meanwhile. A set that is shown is never exchanged for
// another by itself, since a key may be on its way to it: the store takes a judgement of any set that
// it gave out. `sent` is the key of that judgement.
const goOnAhead = (sent) => {
  const { after: [coming, ...after], done, total, waiting, qualifying, project: where } = item;
  if (!coming || performance.now() + AHEAD_MS > coming.until || unanswered(item).length) return false;
  const left = Math.max(0, (qualifying ?? 0) - 1);
  receive({ ...coming, project: where, done: done + 1, total, waiting, qualifying: left, after, undo: sent });
  showGuidelines();
  refresh();
  return true;
};
const refresh = async () => {
  const shown = item;
  const mine = (refresh.asked = (refresh.asked ?? 0) + 1);
  let given;
  try {
    given = await call("next", { annotator, project });
  } catch {
    return; // the next judgement asks again, and says so where that fails
  }
  if (mine < (refresh.answered ?? 0)) return; // a newer answer was faster
  refresh.answered = mine;
  // Whoever is faster than this answer has gone on to one of the sets that it names, and those behind
  // it are still to come. Where it begins with another, that was taken back in another tab.
  const begins = [shown, item].some((each) => isSame(each, given));
  const at = [given, ...given.after].findIndex((each) => isSame(each, item));
  if (!begins || at < 0) {
    if (item === shown && !busy) item.after = [];
    return;
  }
  rename(item, [given, ...given.after][at].item);
  expect(given.after.slice(at));
  // The numbers are of an earlier set, or may count the judgement that is under way.
  if (at > 0 || busy) return;
  item.done = given.done;
  item.total = given.total;
  item.waiting = given.waiting;
  item.qualifying = given.qualifying;
  item.undo = given.undo;
  drawProgress();
};

const receive = (given) => {
  item = given;
  drawProgress();
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
        ? `You have been through all ${item.done}. New ones appear here as soon as they are made.`
        : "What is made to be ranked appears here by itself.";
    }
    const elsewhere = item.waiting > 0 || item.held || root.dataset.role === "annotator";
    q(".rk-make").hidden = !props.making || elsewhere;
    q(".rk-make").textContent = item.done ? "Make more candidates" : "Make candidates";
    q(".rk-empty .rk-demo").hidden = !props.demo || q(".rk-make").hidden || item.done > 0;
    q(".rk-learn").hidden = !props.learning || elsewhere || !item.done;
    next.timer = setTimeout(lookAgain, LOOK_AGAIN_MS);
    offerProjects();
    q('.rk-empty [data-do="undo"]').hidden = !item.undo || item.held;
    session = null;
    clock(false);
    closeZoom();
    show("empty");
    return;
  }
  const draft = draftOf(item);
  const mine = draft && draft.session?.count === item.candidates.length;
  const { candidates: { length: count }, taken_back: before } = item;
  if (mine) session = draft.session;
  else session = before ? Session.restored(count, before) : Session.fresh(count);
  attempt = mine ? attemptOf(draft) : newAttempt();
  looked = mine ? draft.looked : 0;
  since = null;
  clock(!document.hidden);
  show("ranking");
  Candidates.forget();
  drawItem();
  persist();
  draw();
  arrange();
  if (zoomDialog.open) openZoom();
  else if (document.activeElement === document.body) q(".rk-prompt").focus({ preventScroll: true });
  say(`${item.prompt}. ${single() ? `One ${kind.noun}` : `${item.candidates.length} ${kind.noun}s`}.`);
  expect(item.after);
};

const notYet = (error) => complain(`Not saved yet: ${error.message} Your ranking is kept here.`, submit);

// The server did not take a judgement. Its set may still be open: under another name since an upgrade,
// or because what was sent under its key was taken back elsewhere. Then it is sent once more. Where
// the server does not know the name, an earlier try may have been stored under it.
const refused = async (judged, error, again) => {
  const keys = error.unknown ? [...attempt.replaces, attempt.key] : attempt.replaces;
  attempt = newAttempt(keys);
  persist();
  let open = false;
  try {
    open = !again && ((await findAgain(judged)) || (error.unknown && (await takeBackAll(keys)) && (await findAgain(judged))));
  } catch (lost) {
    busy = "";
    draw();
    notYet(lost);
    return;
  }
  busy = "";
  if (open) {
    await submit(true);
    return;
  }
  draw();
  const why = error.unknown
    ? "the server does not know this set any more: it was upgraded, or its data were replaced. Your ranking is kept here in case it comes again."
    : "this set was judged already, perhaps in another tab.";
  complain(`Not saved: ${why}`, next, GO_ON);
};
// Whether the server offers this set, whose name is then as the server says it.
const findAgain = async (set) => {
  const given = await call("next", { annotator, project });
  const coming = [given, ...given.after];
  const at = coming.findIndex((each) => isSame(each, set));
  if (at < 0) return false;
  rename(set, coming[at].item);
  expect(given.after.slice(at));
  return true;
};

const submit = async (again = false) => {
  if (!session || busy) return;
  if (item.judged) {
    await next();
    return;
  }
  if (withheld(session)) return;
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
  // What is sent is of this set, whatever is on the screen when the receipt comes.
  attempt = attemptAt(attempt, session);
  const [sent, judged] = [attempt.key, item];
  busy = "Saving…";
  calm();
  persist();
  draw();
  const milliseconds = viewed();
  try {
    await call("submit", submission(judged, attempt, session, milliseconds));
  } catch (error) {
    if (error.gone) {
      await refused(judged, error, again);
    } else {
      busy = "";
      draw();
      notYet(error);
    }
    return;
  }
  judged.judged = true;
  busy = "";
  saveDraft(judged, null);
  const times = load(slot("times"), []);
  save(slot("times"), [...times, Math.min(milliseconds, 120000)].slice(-20));
  toast("Saved");
  noteWork(Math.min(milliseconds, 120000));
  suggestRest();
  if (!goOnAhead(sent)) await next();
  if (votesDialog.open) openVotes();
};

// Takes a judgement back; its set is the next one, with what was judged as its draft.
const takeBack = async (judged) => {
  busy = "Taking it back…";
  if (session) {
    persist();
    draw();
  }
  try {
    const back = await call("undo", { annotator, key: judged });
    const again = Session.restored(back.num_candidates, back);
    saveDraft(back, { ...newAttempt(), session: again, looked: 0, project: item.project });
    toast("Taken back. Submit it to count again");
    return back;
  } finally {
    busy = "";
    if (session) draw();
  }
};

const undo = async () => {
  if (closed()) return;
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
    complain(error.message, ...(error.gone ? [next, GO_ON] : [undo]));
    return;
  }
  await next(false);
};

/* ---------- dialogs ---------- */
// Those about the set on screen; the list of votes and the zoom stay open when another set comes.
const closeDialogs = () => {
  for (const dialog of root.querySelectorAll("dialog[open]:not(.rk-votes, .rk-zoom)")) dialog.close();
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
