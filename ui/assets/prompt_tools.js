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

const open = async (chosen) => {
  complain("");
  if (chosen.size > LARGEST) {
    complain(`${chosen.name}: expected at most ${LARGEST / 1000} kB of prompts, got ${Math.ceil(chosen.size / 1000)} kB; take a part of it`);
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
