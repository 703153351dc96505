// What differs between candidates that are images and candidates that are texts: how one is drawn,
// in a tile, in the tray and beside the others in the dialog, and how it is named.
// A text is written with `textContent` only, so that it shows as it was typed.
const Candidates = (() => {
  const columnsFor = (count) => (count <= 5 ? count : Math.ceil(count / 2));
  const node = (tag, className, text) => {
    const made = document.createElement(tag);
    made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // Images of the coming sets, loaded and decoded already, by their addresses; each is shown as it is.
  const ahead = new Map();
  const image = ({ url }) => {
    const made = document.createElement("img");
    made.src = url;
    made.alt = "";
    made.draggable = false;
    made.addEventListener("error", () => {
      made.replaceWith(node("span", "rk-broken", "This image could not be loaded. Press it to try again"));
    });
    return made;
  };

  const small = ({ url }) => {
    const made = document.createElement("img");
    made.loading = "lazy";
    made.src = url;
    made.alt = "";
    made.addEventListener("error", () => made.replaceWith(node("span", "rk-broken", "?")));
    return made;
  };

  const texts = new Map(); // address -> promise of the text, of the item on screen
  const read = (url) => {
    if (!texts.has(url)) {
      const answer = fetch(url).then((response) => {
        if (!response.ok) throw new Error(`status ${response.status}`);
        return response.text();
      });
      answer.catch(() => texts.delete(url));
      texts.set(url, answer);
    }
    return texts.get(url);
  };
  const words = (className) => ({ url }) => {
    const made = node("div", className);
    made.dir = "auto";
    read(url).then(
      (text) => {
        made.replaceChildren(document.createTextNode(text));
        made.dataset.read = "";
        made.dispatchEvent(new Event("load")); // as an image does
      },
      () => {
        made.replaceChildren(node("span", "rk-broken", "This text could not be loaded. Press its number to try again"));
        made.dispatchEvent(new Event("error"));
      },
    );
    return made;
  };

  // Whether the candidate of a tile or pane can be seen there: "shown", "loading" or "lost".
  const standing = (place) => {
    if (place?.querySelector(".rk-broken")) return "lost";
    const shown = place?.querySelector("img, .rk-words");
    if (!shown) return "loading";
    const whole = shown.matches("img") ? shown.complete && shown.naturalWidth > 0 : "read" in shown.dataset;
    return whole ? "shown" : "loading";
  };

  const inTile = (candidate) => {
    const loaded = ahead.get(candidate.url);
    ahead.delete(candidate.url);
    return loaded?.naturalWidth ? loaded : image(candidate);
  };

  const images = {
    noun: "image",
    inTile,
    inTray: image,
    inPane: image,
    inList: small,
    columns: columnsFor,
    height: () => "46vh",
    panes: columnsFor,
  };
  const ofTexts = {
    noun: "text",
    inTile: words("rk-words"),
    inTray: words("rk-snippet"),
    inPane: words("rk-words"),
    inList: words("rk-snippet"),
    columns: (count) => (count === 1 ? 1 : count <= 4 ? 2 : 3), // lines of about 45 to 75 characters
    height: (count) => ["46vh", "46vh", "27vh"][Math.ceil(count / 2)] ?? "22vh",
    panes: (count) => (count === 4 ? 2 : Math.min(count, 3)),
  };
  // The columns that make `count` equal rectangles of an aspect largest in a place, and how wide
  // they are then. Around each there is `across` by `down` of its own, between them a gap.
  const grid = (count, { width, height, gap, aspect, across = 0, down = 0 }) => {
    let best = { columns: 1, width: 0 };
    for (let columns = 1; columns <= count; columns += 1) {
      const rows = Math.ceil(count / columns);
      const most = (width - gap * (columns - 1)) / columns - across;
      const high = (height - gap * (rows - 1)) / rows - down;
      const found = Math.min(most, high * aspect);
      if (found > best.width) best = { columns, width: found };
    }
    return best;
  };
  // How images are as large as the room allows: in which columns, with number and rank below or beside
  // each image, and with the ranking, which is a row below them or a column beside them. Where they
  // would be small, the ranking is below the bar of buttons, and one scrolls to see it. Where they would
  // be small even so, or where one `scrolls` anyway, as on a phone, and they are larger for it, there are
  // fewer columns than fit, and images are below the bar as well.
  const LEAST = 130; // side in CSS pixels of a square that is as large as the image
  const FEET = { none: [0, 0], below: [0, 32], beside: [42, 0] };
  const TRAYS = { none: [0, 0], below: [0, 82], beside: [122, 0] };
  const WORTH = 1.04; // how much larger images are for which something moves beside them
  const THUMB = { most: 56, least: 30, around: 20 }; // around: of a place in a column of the ranking
  const largest = (count, trays, { width, height, padding, gap, aspect }) => {
    let best = { width: 0 };
    for (const tray of trays) {
      for (const foot of count === 1 ? ["none"] : ["below", "beside"]) { // one alone has no number
        const [across, down] = FEET[foot].map((each) => each + 2 * padding);
        const room = { width: width - TRAYS[tray][0], height: height - TRAYS[tray][1], gap, aspect, across, down };
        const found = grid(count, room);
        if (found.width > best.width * WORTH) best = { ...found, tray, foot, across };
      }
    }
    return best;
  };
  const beyond = (count, least, { width, screen, padding, gap, aspect }) => {
    const across = 2 * padding;
    const columns = Math.max(1, Math.min(count, Math.floor((width + gap) / (least + across + gap))));
    const most = (width - gap * (columns - 1)) / columns - across;
    const high = (screen - FEET.below[1] - 2 * padding) * aspect;
    return { columns, width: Math.min(most, high), foot: "below", across };
  };
  const layout = (count, place) => {
    const thumb = Math.min(THUMB.most, Math.floor(place.height / count) - THUMB.around);
    const column = count > 2 && thumb >= THUMB.least;
    const trays = count <= 2 ? ["none"] : column ? ["below", "beside"] : ["below"];
    const least = LEAST * Math.sqrt(place.aspect); // as a width
    const best = largest(count, trays, place);
    if (best.width >= least) return { ...best, thumb: best.tray === "beside" ? thumb : null };
    const whole = largest(count, ["none"], place);
    const cut = beyond(count, least, place);
    const found = whole.width >= (place.scrolls ? cut.width : least) ? whole : cut;
    return { ...found, tray: trays[0], thumb: null };
  };
  const forget = () => texts.clear();
  const load = ({ samples }, candidate) => {
    if (samples === "images") {
      const made = image(candidate);
      made.decode().catch(() => null); // one that fails is asked for again when it is shown
      return made;
    }
    fetch(candidate.url).then((response) => response.text()).catch(() => null); // the browser keeps it
    return null;
  };
  const prefetch = (sets) => {
    const coming = new Set(sets.flatMap(({ candidates }) => candidates.map(({ url }) => url)));
    for (const url of ahead.keys()) if (!coming.has(url)) ahead.delete(url);
    for (const set of sets) {
      for (const candidate of set.candidates) {
        if (!ahead.has(candidate.url)) ahead.set(candidate.url, load(set, candidate));
      }
    }
  };
  return { images, texts: ofTexts, standing, grid, layout, forget, prefetch };
})();
