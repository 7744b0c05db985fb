"use strict";
const at = (id) => document.getElementById(id);
const number = (value) => Math.round(value || 0).toLocaleString("en");

function row(line) {
  const cells = [
    new Date(line.time * 1000).toLocaleTimeString(),
    line.event.replace("_", " "),
    (line.partner || line.to || line.donor || "").slice(-6),
    line.outcome || line.error || line.source || "ok",
  ];
  const made = document.createElement("tr");
  for (const text of cells) made.appendChild(document.createElement("td")).textContent = text;
  return made;
}

function show(said) {
  const leaving = said.leaving !== "";
  at("name").textContent = said.name;
  at("state").textContent = leaving ? `leaving (${said.leaving})` : said.state;
  const reach = said.reach === "unknown" ? "" : said.reach;
  at("who").textContent = [said.role, said.run, said.peer_id, reach].filter(Boolean).join(" · ");
  at("line").textContent = said.line;
  at("share").textContent = (100 * said.progress).toFixed(1);
  at("progress").value = said.progress;
  for (const key of ["step", "tokens", "rate", "alive"]) at(key).textContent = number(said[key]);
  const ways = Object.values(said.ways || {});
  for (const way of ["direct", "relayed"]) at(way).textContent = ways.filter((w) => w === way).length;
  at("met").textContent = number((said.exchanges.ok || 0) + (said.exchanges.late || 0));
  at("pause").disabled = leaving || said.resting;
  at("resume").disabled = leaving || !said.resting;
  at("leave").disabled = leaving;
  at("recent").replaceChildren(...said.recent.map(row));
}

async function look() {
  try {
    show(await (await fetch("/status")).json());
  } catch {
    at("state").textContent = "gone";
    for (const id of ["pause", "resume", "leave"]) at(id).disabled = true;
  }
}

for (const order of ["pause", "resume", "leave"]) {
  at(order).addEventListener("click", async () => {
    if (order === "leave" && !confirm("Leave the run? Work is handed over first.")) return;
    await fetch(`/${order}`, { method: "POST", headers: { "X-Swarmnet": "1" } });
    look();
  });
}
look();
setInterval(look, 1000);
