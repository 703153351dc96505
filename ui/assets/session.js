// One ranking in the making: every transition returns a new state that remembers the one before it.
// States are plain objects, so that they can go to browser storage. What is sent (`judgement`) names
// positions on the screen; the store checks it and knows which candidate stood at each.
const Session = (() => {
  const all = (s) => Array.from({ length: s.count }, (_, p) => p);

  const fresh = (count) => ({
    count, placed: [], tied: [], verdict: "ranked", reason: null, past: [],
  });

  const bare = (s) => JSON.stringify([s.count, s.placed, s.tied, s.verdict, s.reason]);

  const next = (s, placed, tied, verdict = "ranked", reason = null) => {
    const after = { count: s.count, placed, tied, verdict, reason, past: [] };
    if (bare(after) === bare(s)) return s;
    const { past, ...before } = s;
    return { ...after, past: [...past, before] };
  };

  const groups = (s) => {
    const out = [];
    s.placed.forEach((p, i) => (s.tied[i] ? out[out.length - 1].push(p) : out.push([p])));
    return out;
  };

  const without = (s, position) =>
    groups(s).map((g) => g.filter((p) => p !== position)).filter((g) => g.length);

  const regrouped = (s, gs) =>
    next(s, gs.flat(), gs.flatMap((g) => g.map((_, index) => index > 0)));

  const restored = (count, { ranking, verdict, reason }) => ({
    ...regrouped(fresh(count), ranking ?? []), verdict, reason, past: [],
  });

  const judgement = (s) => ({
    ranking: s.verdict === "ranked" ? groups(s) : null, verdict: s.verdict, reason: s.reason,
  });

  const missing = (s) => all(s).filter((p) => !s.placed.includes(p));

  const ready = (s) => s.verdict !== "ranked" || missing(s).length === 0;

  const unplace = (s, position) =>
    s.placed.includes(position) ? regrouped(s, without(s, position)) : s;

  const place = (s, position) =>
    s.placed.includes(position)
      ? unplace(s, position)
      : next(s, [...s.placed, position], [...s.tied, false]);

  const toggleTie = (s) =>
    s.placed.length < 2
      ? s
      : next(s, s.placed, [...s.tied.slice(0, -1), !s.tied[s.tied.length - 1]]);

  const tieWith = (s, position, other) =>
    position === other || !s.placed.includes(other)
      ? s
      : regrouped(s, without(s, position).map((g) => (g.includes(other) ? [...g, position] : g)));

  const insertBefore = (s, position, other) =>
    position === other || !s.placed.includes(other)
      ? s
      : regrouped(
          s,
          without(s, position).flatMap((g) => (g.includes(other) ? [[position], g] : [g])),
        );

  const moveLast = (s, position) => regrouped(s, [...without(s, position), [position]]);

  const complete = (s) => (missing(s).length === 1 ? place(s, missing(s)[0]) : s);

  const prefer = (s, position) =>
    regrouped(s, [[position], all(s).filter((p) => p !== position)]);

  const level = (s) => regrouped(s, [all(s)]);

  const judgeAllBad = (s) =>
    next(s, s.placed, s.tied, s.verdict === "all_bad" ? "ranked" : "all_bad");

  const skip = (s, reason) =>
    s.verdict === "skipped" && s.reason === reason
      ? next(s, s.placed, s.tied)
      : next(s, s.placed, s.tied, "skipped", reason);

  const clear = (s) => next(s, [], []);

  const undo = (s) => {
    if (!s.past.length) return s;
    return { ...s.past[s.past.length - 1], past: s.past.slice(0, -1) };
  };

  return {
    fresh, restored, judgement, groups, missing, ready, place, unplace, toggleTie, tieWith, insertBefore, moveLast,
    complete, prefer, level, judgeAllBad, skip, clear, undo,
  };
})();
