// What is half done, and what was sent without an answer: one draft for each set, so that going back
// to an older one loses none in between.
//
// A judgement whose receipt did not come may be stored all the same. So what is sent under a key is
// never changed: a correction has a key of its own and names those that it replaces, and the server
// takes back whichever of these arrived as it stores the correction.
const MOST_DRAFTS = 40;
const MOST_REPLACED = 100; // as many as the server takes

// A set may get another name when the server is upgraded; its candidates keep theirs.
const firstOf = (set) => set.candidates?.[0]?.token;
const isSame = (one, other) =>
  one.item === other.item || (firstOf(one) !== undefined && firstOf(one) === firstOf(other));

const drafts = () => {
  const found = load(slot("drafts"), {});
  const one = load(slot("draft"), null); // as pages before this one kept it
  return one?.item ? { [one.item]: one, ...found } : found;
};
const isOf = (set) => (draft) =>
  draft.item === set.item || (firstOf(set) !== undefined && draft.first === firstOf(set));
const draftOf = (set) => drafts()[set.item] ?? Object.values(drafts()).find(isOf(set));
// The draft of a set; null removes it.
const saveDraft = (set, draft) => {
  const others = Object.values(drafts()).filter((each) => !isOf(set)(each));
  const kept = draft ? [...others, { first: firstOf(set), ...draft, item: set.item }] : others;
  save(slot("drafts"), Object.fromEntries(kept.slice(-MOST_DRAFTS).map((each) => [each.item, each])));
  save(slot("draft"), null);
};

/* ---------- sending ---------- */
// `sent` is what went out under the key, null where nothing did or the key is of no use any more;
// `replaces` are earlier keys of the same set.
const newAttempt = (replaces = []) => ({ key: newKey(), sent: null, replaces: replaces.slice(-MOST_REPLACED) });
// Older pages did not note what they had sent.
const attemptOf = ({ key, sent, replaces }) =>
  sent === undefined ? newAttempt([key]) : { key, sent, replaces };
const contentOf = (ranked) => JSON.stringify(Session.judgement(ranked));
// The attempt at sending this: the same again, or a new one in its place.
const attemptAt = (tried, ranked) => {
  const content = contentOf(ranked);
  const changed = tried.sent !== null && tried.sent !== content;
  return { ...(changed ? newAttempt([...tried.replaces, tried.key]) : tried), sent: content };
};
const submission = (set, { key, replaces }, ranked, milliseconds) => ({
  annotator, key, item: set.item, ...Session.judgement(ranked), client_ms: milliseconds, replaces,
});

/* ---------- what was left without an answer ---------- */
// Drafts of other sets of this project that were sent and may be stored, such as before a reload.
const unanswered = (current) =>
  Object.values(drafts()).filter((each) => each.sent && (each.project ?? current.project) === current.project && !isOf(current)(each));

// Whether anything under these keys was there to be taken back.
const takeBackAll = async (keys) => {
  let found = false;
  for (const each of keys) {
    try {
      await call("undo", { annotator, key: each });
      found = true;
    } catch (error) {
      if (!error.gone) throw error; // else it never arrived
    }
  }
  return found;
};

// What is as it was sent is sent again, which changes nothing where it had arrived. What was being
// corrected is taken back, and so comes up again with its draft. Whether another set may come next.
// Where the server does not answer all stays, for the next time.
const settle = async (current) => {
  let changed = false;
  for (const draft of unanswered(current)) {
    const { key, sent, replaces, session: ranked } = draft;
    try {
      if (sent === contentOf(ranked)) {
        const { created } = await call("submit", submission(draft, draft, ranked, draft.looked));
        changed ||= created;
        saveDraft(draft, null);
      } else {
        const keys = [...replaces, key];
        const found = await takeBackAll(keys);
        changed ||= found;
        saveDraft(draft, { ...draft, ...newAttempt(keys) });
      }
    } catch (error) {
      if (!error.gone && !error.refused) return changed;
      saveDraft(draft, { ...draft, sent: null });
    }
  }
  return changed;
};
