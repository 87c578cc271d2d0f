// What waits for reviewers, and what they say of it. Text goes in as text (textContent), never as markup: people write it.
"use strict";
(() => {
  const EVERY = 3000; // milliseconds between two looks
  const byId = (id) => document.getElementById(id);
  const sent = new Set(); // decided here, until the queue says so

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  function trouble(said) {
    byId("trouble").textContent = said;
    byId("trouble").hidden = !said;
  }
  function state(name, said) {
    byId("status").dataset.state = name;
    byId("status-text").textContent = said;
  }
  const named = () => byId("by").value.trim();
  const keyed = () => !byId("key").parentElement.hidden;

  async function ask(path, body) {
    const headers = {};
    if (body) headers["content-type"] = "application/json";
    if (body && byId("key").value) headers.authorization = `Bearer ${byId("key").value.trim()}`;
    const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error || `it says ${answer.status}`);
    return found;
  }

  async function say(path, body, buttons) {
    if (!keyed() && !named()) return void (trouble("Who says so? Give your name above."), byId("by").focus());
    if (keyed() && !byId("key").value) return void (trouble("This needs your key, above."), byId("key").focus());
    buttons.forEach((button) => (button.disabled = true));
    try {
      await ask(path, keyed() ? body : { ...body, by: named() });
      trouble("");
      return true;
    } catch (error) {
      trouble(error.message);
      buttons.forEach((button) => (button.disabled = false));
    }
  }

  // ---- what is shown

  function because(queued) {
    if (queued.have > 1) return "two contradict each other";
    if (queued.flags) return queued.flags === 1 ? "flagged as wrong" : `flagged as wrong by ${queued.flags}`;
    if (queued.unfamiliar) return "half of its inputs are missing";
    return queued.answer === undefined ? "close to the threshold" : "two classes are about as probable";
  }
  function inputs(queued) {
    return Object.entries(queued.inputs || {}).map(([name, value]) => `${name} ${value === null ? "missing" : value}`).join(" · ");
  }
  // ---- what people may say, by the kind of label

  const BUTTONS = 5; // of more classes one is chosen from a list
  const words = (model) => (model.task === "binary" ? ["yes", "no"] : model.classes);
  const choices = (model) => words(model).map((word) => make("option", { value: word }, word));
  const numeral = (column) => make("input", { type: "number", step: "any", required: "", "aria-label": column });
  function field(model) { // null: a button for each word
    if (model.task === "regression") return numeral(model.column);
    const first = make("option", { value: "" }, "choose");
    return words(model).length > BUTTONS ? make("select", { required: "", "aria-label": model.column }, first, ...choices(model)) : null;
  }
  function meant(model, word) {
    if (model.task === "binary") return word === "yes";
    return model.task === "regression" ? Number(word) : word;
  }
  function answered(model, queued) {
    if (model.task === "regression") return String(Number(queued.score.toPrecision(6)));
    return (queued.answer === undefined ? "" : `${queued.answer} `) + queued.score.toFixed(3);
  }

  // ---- what waits

  const round = (model, queued) => `${model.name}/${queued.prediction}/${queued.have}`;
  function waits(model, queued) {
    const answers = make("form", { class: "answers", "aria-label": `${model.column} of ${queued.prediction}?` });
    const given = field(model);
    const buttons = given ? [make("button", {}, "say")] : words(model).map((word) => make("button", { value: word }, word));
    answers.addEventListener("submit", async (event) => {
      event.preventDefault();
      const said = { prediction: queued.prediction, says: meant(model, given ? given.value : event.submitter.value) };
      if (!(await say(`reviews/${encodeURIComponent(model.name)}`, said, buttons))) return;
      sent.add(round(model, queued));
      look();
    });
    answers.append(make("span", {}, `${model.column}?`), ...(given ? [given] : []), ...buttons);
    if (queued.want > 1) answers.append(make("span", { class: "have" }, `${queued.have} of ${queued.want} have decided`));
    const at = new Date(queued.time).toISOString().slice(0, 16).replace("T", " ");
    const head = make("div", {}, make("span", { class: "name" }, queued.prediction),
      ` of ${queued.key}, ${at}: ${answered(model, queued)} by version ${queued.version}, `, make("span", { class: "why" }, because(queued)));
    const notes = queued.notes.length ? [make("div", { class: "notes" }, queued.notes.join(" · "))] : [];
    return make("li", { class: "case" }, head, answers, ...notes, make("div", { class: "inputs" }, inputs(queued) || `inputs: penstock review show ${queued.prediction}`));
  }
  function agreed(found) {
    if (found.alpha === null) return [`agreement: ${found.missing}`];
    const two = (x) => x.toFixed(2);
    return ["agreement: ", make("b", {}, `alpha ${two(found.alpha)}`),
      ` (${two(found.low)} to ${two(found.high)}; Krippendorff, ${found.metric}), the same on ${Math.round(100 * found.observed)} % of ${found.answers} answers that two decided`];
  }
  function flagging(model) {
    const id = make("input", { placeholder: "id of an answer", maxlength: "1024", required: "", "aria-label": "id of an answer" });
    const number = model.task === "regression";
    const right = number ? numeral("what would be right") : make("select", { "aria-label": "what would be right" },
      make("option", { value: "" }, "wrong"), ...words(model).map((word) => make("option", { value: word }, `${word} would be right`)));
    if (number) {
      right.required = false;
      right.placeholder = "right (may be left out)";
    }
    const why = make("input", { class: "reason", placeholder: "why (may be left out)", maxlength: "500", "aria-label": "why" });
    const button = make("button", {}, "flag");
    const form = make("form", { class: "flag" }, make("span", {}, "An answer is wrong:"), id, right, why, button);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const body = { prediction: id.value.trim(), why: why.value };
      if (right.value !== "") body.says = meant(model, right.value);
      if (await say(`flags/${encodeURIComponent(model.name)}`, body, [button])) form.reset();
      button.disabled = false;
    });
    return form;
  }
  const sections = new Map();
  function show(model) {
    if (!sections.has(model.name)) {
      const facts = make("div", { class: "summary" }), list = make("ol", { class: "cases" });
      const section = make("section", { class: "reviewed" }, make("h2", {}, `${model.name} `, make("small", {}, `label: ${model.column}`)), facts, list, flagging(model));
      byId("models").append(section);
      sections.set(model.name, { facts, list, nodes: new Map() });
    }
    const { facts, list, nodes } = sections.get(model.name);
    const ended = Object.entries(model.ends).sort().map(([name, n]) => `${n.toLocaleString("en-US")} ${name}`).join(", ");
    facts.replaceChildren(make("span", {}, make("b", {}, model.waiting.toLocaleString("en-US")), " wait for you"),
      make("span", {}, `ended: ${ended || "none yet"}`), make("span", {}, ...agreed(model.agreement)));
    // who points at the list must not have another answer pushed under the button
    const places = list.matches(":hover, :focus-within") ? [...list.querySelectorAll(".name")].map((node) => node.textContent) : [];
    const place = (queued) => (places.includes(queued.prediction) ? places.indexOf(queued.prediction) : places.length);
    // what has not changed stays as it is: somebody may be typing into it
    const fresh = new Map();
    for (const queued of model.shown.sort((a, b) => place(a) - place(b))) {
      const as = JSON.stringify(queued), node = sent.has(round(model, queued)) ? null : nodes.get(as) || waits(model, queued);
      if (node) fresh.set(as, node);
    }
    sections.get(model.name).nodes = fresh;
    const cases = fresh.size ? [...fresh.values()] : [make("li", {}, "Nothing waits for you.")];
    if (fresh.size && cases.length === list.children.length && cases.every((node, at) => node === list.children[at])) return;
    const active = document.activeElement;
    const held = list.contains(active) ? [...list.querySelectorAll("button")].indexOf(active) : -1;
    list.replaceChildren(...cases);
    if (list.contains(active)) active.focus();
    else if (held >= 0) list.querySelectorAll("button")[Math.min(held, list.querySelectorAll("button").length - 1)]?.focus();
  }

  async function look() {
    try {
      const by = keyed() ? "" : `?by=${encodeURIComponent(named())}`;
      for (const model of await ask(`reviews/waiting${by}`)) show(model);
      state("live", "live");
    } catch (error) {
      state("lost", `not reached: ${error.message}`);
    }
  }
  try { byId("by").value = sessionStorage.getItem("by") || ""; } catch { /* not kept */ }
  byId("by").addEventListener("change", () => {
    try { sessionStorage.setItem("by", named()); } catch { /* not kept */ }
    look();
  });
  look();
  setInterval(() => { if (!document.hidden) look(); }, EVERY);
})();
