// Puts the prompts of a text file, or some examples, into the box above. The file is read here and
// sent with the form, where it is checked again.
const root = element.querySelector(".tools");
const LARGEST = 150000; // bytes: what the form may hold
const file = root.querySelector("input");
const alert = root.querySelector("p");
const complain = (text) => {
  alert.textContent = text;
  alert.hidden = !text;
};

const refuse = (name, size) =>
  complain(`${name}: expected at most ${LARGEST / 1000} kB of prompts, got ${Math.ceil(size / 1000)} kB; take a part of it`);

const open = async (chosen) => {
  complain("");
  if (chosen.size > LARGEST) {
    refuse(chosen.name, chosen.size);
    return;
  }
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await chosen.arrayBuffer());
  } catch {
    complain(`${chosen.name}: expected text in UTF-8, one prompt per line, got something else; save it as plain text`);
    return;
  }
  trigger("prompts_opened", { text });
};

// What is pasted into the box is held to the same, before the app hears of it: what was there stays.
let before = "";
const inBox = (event) => event.target.matches?.("#candidate-prompts textarea");
const keepBefore = (event) => {
  if (inBox(event)) before = event.target.value;
};
const holdPasted = (event) => {
  if (!inBox(event)) return;
  const { size } = new Blob([event.target.value]);
  complain("");
  if (size <= LARGEST) return;
  event.stopImmediatePropagation();
  refuse("What was pasted", size);
  event.target.value = before;
};
document.addEventListener("beforeinput", keepBefore, true);
document.addEventListener("input", holdPasted, true);

file.addEventListener("change", () => {
  if (file.files.length) open(file.files[0]);
  file.value = "";
});
root.querySelector("label").addEventListener("keydown", (event) => {
  if (["Enter", " "].includes(event.key)) file.click();
});
const examples = root.querySelector("[data-examples]");
examples.hidden = !props.examples.length;
examples.addEventListener("click", () => trigger("prompts_opened", { text: props.examples.join("\n") }));
