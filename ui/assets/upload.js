// Sends files to the app, one in each request, under a name that it gives out; then the form names
// that upload instead of a folder. The first file that is refused ends it, with the reason.
const root = element.querySelector(".drop");
const input = root.querySelector("input");
const said = root.querySelector(".drop-said");
const wrong = root.querySelector(".drop-wrong");
const clear = root.querySelector("button");
let name = ""; // what the app calls this upload
let total = 0; // images sent so far
let busy = false;

const post = async (path, body) => {
  let response;
  let answer;
  try {
    response = await fetch(new URL(`api/candidates/uploads${path}`, document.baseURI), { method: "POST", body });
    answer = await response.json();
  } catch {
    throw new Error("The app cannot be reached; choose the files again when it is there.");
  }
  if (!response.ok) throw new Error(answer.error ?? `The app answered ${response.status}.`);
  return answer;
};

const images = (count) => (count === 1 ? "1 image" : `${count} images`);
const complain = (text) => {
  wrong.textContent = text;
  wrong.hidden = !text;
};

const send = async (given) => {
  if (busy) return;
  busy = true;
  complain("");
  try {
    const files = await given;
    if (!files.length) throw new Error("Expected images (PNG, JPEG or WebP), found none in what was dropped.");
    if (!name) name = (await post("", null)).upload;
    for (const [number, [path, file]] of files.entries()) {
      said.textContent = `Sending ${number + 1} of ${files.length}: ${file.name}`;
      await refuseUnreadable(file);
      total = (await post(`/${name}?name=${encodeURIComponent(path)}`, file)).total;
    }
  } catch (error) {
    complain(error.message);
  }
  busy = false;
  said.textContent = total ? `${images(total)} sent.` : "";
  clear.hidden = !total;
  if (total) trigger("files_sent", { upload: name });
};

input.addEventListener("change", async () => {
  if (input.files.length) await send([...input.files].map((file) => [file.webkitRelativePath || file.name, file]));
  input.value = "";
});
root.querySelector("label").addEventListener("keydown", (event) => {
  if (["Enter", " "].includes(event.key)) input.click();
});
root.addEventListener("dragover", (event) => {
  event.preventDefault();
  root.toggleAttribute("data-over", true);
});
root.addEventListener("dragleave", () => root.removeAttribute("data-over"));
root.addEventListener("drop", (event) => {
  event.preventDefault();
  root.removeAttribute("data-over");
  send(dropped(event.dataTransfer));
});
const forget = () => {
  name = "";
  total = 0;
  said.textContent = "";
  clear.hidden = true;
  complain("");
};
clear.addEventListener("click", () => {
  forget();
  trigger("files_sent", { upload: "" });
});
// Once its candidates are being made, the next files are another upload.
watch("value", () => props.value?.used && props.value.used === name && forget());
