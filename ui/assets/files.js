// Files of this computer that are sent to the app.
const refuseUnreadable = async (file) => {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Error(`${file.name}: expected a file that can be read, got a folder or one that has changed; choose it again, or a zip of the folder`);
  }
};

// What was dropped, as pairs of a path and a file: of folders what is wanted in them, at any depth.
const WANTED = /^[^.].*\.(png|jpe?g|webp|txt|json)$/i;
const within = async (folder) => {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail)); // a hundred at most
    if (!some.length) return found;
    for (const each of some) {
      if (each.isDirectory) found.push(...(await within(each)));
      else if (WANTED.test(each.name)) {
        found.push([each.fullPath.slice(1), await new Promise((done, fail) => each.file(done, fail))]);
      }
    }
  }
};
const dropped = async (transfer) => {
  // What an event carries is there only until the first await.
  const all = [...transfer.items].filter((each) => each.kind === "file");
  const given = all.map((each) => [each.webkitGetAsEntry?.(), each.getAsFile()]);
  const found = [];
  for (const [entry, file] of given) {
    if (entry?.isDirectory) found.push(...(await within(entry)));
    else if (file) found.push([file.name, file]);
  }
  return found;
};
