"use strict";
// Everything recorded becomes text by textContent; no markup is ever made of it.
(() => {
  const find = (id) => document.getElementById(id);
  const raw = (id) => find(id).textContent;
  const lines = (id) => raw(id).split("\n");
  const about = JSON.parse(raw("about"));
  const names = ["read", "iteration", "by", "task", "type", "description", "member", "outcome", "end", "gain", "turns",
    "low", "high"];
  const heads = JSON.parse(raw("heads")).map((values, number) => {
    const head = { number };
    names.forEach((name, i) => { head[name] = values[i]; });
    head.when = head.iteration === null ? head.by || "evaluation" : `iteration ${head.iteration}`;
    return head;
  });
  const reads = lines("reads");
  // The oldest episodes may be compressed, in blocks; what is in one is known once it was asked for.
  const before = about.blocks.reduce((a, b) => a + b, 0), blocks = raw("packed").split("\n"), coming = new Map();
  const behind = (some) => [...new Array(before), ...some];
  const texts = behind(lines("texts")), figures = behind(lines("figures"));
  const unpack = async (word) => {
    const bytes = Uint8Array.from(atob(word), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return (await new Response(stream).text()).split("\n");
  };
  // Nothing for an episode that is known, or a promise that it will be.
  const missing = (number) => {
    if (number >= before || texts[number] !== undefined) return null;
    let block = 0, first = 0;
    while (first + about.blocks[block] <= number) first += about.blocks[block++];
    if (!coming.has(block)) {
      coming.set(block, Promise.all(blocks[block].split(" ").map(unpack)).then(([said, known]) => {
        said.forEach((line, i) => { texts[first + i] = line; });
        known.forEach((line, i) => { figures[first + i] = line; });
        coming.delete(block);
        blocks[block] = "";
      }));
    }
    return coming.get(block);
  };
  const EDGES = [10, 100, 500, 2000]; // thousandths of a nat
  let shown = [], current = null, turn = 0, other = null, spot = null, search = 0;

  const make = (tag, name, text, ...children) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== null && text !== undefined) element.textContent = text;
    element.append(...children);
    return element;
  };
  const button = (text, act, title) => {
    const element = make("button", "", text);
    element.type = "button";
    if (title) element.title = title;
    element.addEventListener("click", act);
    return element;
  };
  const nats = (value, digits = 3) => value === null ? "not finite"
    : `${value > 0 ? "+" : ""}${(value / 1000).toFixed(digits)}`;
  const number = (value) => value === null ? "-" : String(Math.round(value * 1000) / 1000);
  const level = (gap) => {
    if (gap === null) return 0;
    const size = EDGES.filter((edge) => Math.abs(gap) >= edge).length;
    return gap < 0 ? -size : size;
  };
  const tint = (gap) => level(gap) === 0 ? "" : ` g${level(gap)}`;

  // An episode is parsed when it is looked at.
  const episode = (head) => {
    const [error, opening, turns, last, siblings] = JSON.parse(texts[head.number]);
    const known = figures[head.number] ? JSON.parse(figures[head.number]) : [];
    return {
      head, error, opening, last, siblings,
      reads: head.read < 0 ? null : JSON.parse(reads[head.read]),
      turns: turns.map(([seen, said, action, valid, cut, reward, advantage], i) => {
        const tokens = known[i] ? known[i][0].map((text, k) => {
          const [student, teacher, gate] = [known[i][1][k], known[i][2][k], known[i][3][k]];
          return { text, student, teacher, gate, gap: student === null || teacher === null ? null : teacher - student };
        }) : null;
        return { seen, said, action, valid, cut, reward, advantage, tokens };
      }),
    };
  };
  const mean = (values) => values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;
  const gapsOf = (one) => (one.tokens || []).map((token) => token.gap).filter((gap) => gap !== null);

  // The list: only the rows in view exist.
  const list = find("list"), rows = find("rows");
  const rowHeight = () => parseFloat(getComputedStyle(document.documentElement).fontSize) * 3.6;
  const draw = () => {
    const height = rowHeight();
    rows.style.height = `${shown.length * height}px`;
    const first = Math.max(0, Math.floor(list.scrollTop / height) - 5);
    const last = Math.min(shown.length, first + Math.ceil(list.clientHeight / height) + 10);
    rows.replaceChildren(...shown.slice(first, last).map((head, i) => {
      const gap = head.low === null ? "" : `gap ${nats(head.low, 2)} to ${nats(head.high, 2)}`;
      const row = make("div", "row", null,
        make("div", head.outcome, head.description || head.task),
        make("div", "small", null, make("span", "", head.when),
          make("span", "", `${head.turns} turn${head.turns === 1 ? "" : "s"}`), make("span", "", gap)));
      row.style.top = `${(first + i) * height}px`;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", String(current !== null && current.head === head));
      row.addEventListener("click", () => open(head));
      return row;
    }));
  };
  const reveal = () => {
    const at = shown.indexOf(current && current.head), height = rowHeight();
    if (at < 0) return;
    if (at * height < list.scrollTop) list.scrollTop = at * height;
    if ((at + 1) * height > list.scrollTop + list.clientHeight) list.scrollTop = (at + 1) * height - list.clientHeight;
  };
  const ORDERS = {
    new: (a, b) => b.number - a.number, old: (a, b) => a.number - b.number,
    low: (a, b) => (a.low ?? Infinity) - (b.low ?? Infinity) || b.number - a.number,
    high: (a, b) => (b.high ?? -Infinity) - (a.high ?? -Infinity) || b.number - a.number,
  };
  const FILTERS = { iteration: "when", type: "type", outcome: "outcome", end: "end" };
  const counted = () => {
    const at = current === null ? -1 : shown.indexOf(current.head);
    find("count").textContent = `${shown.length} of ${heads.length} episodes${at < 0 ? "" : `, at ${at + 1}`}`;
  };
  const settle = (found) => {
    shown = found.sort(ORDERS[find("order").value]);
    list.scrollTop = 0;
    const closed = !document.body.classList.contains("open") && !narrow();
    if (shown.length && closed && (!current || !shown.includes(current.head))) open(shown[0], true);
    counted();
    reveal();
    draw();
    document.body.dataset.busy = "";
  };
  // The words are looked for a few hundred episodes at a time, so that the page answers meanwhile.
  const filter = () => {
    const mine = ++search;
    document.body.dataset.busy = "yes";
    const wanted = find("text").value.toLowerCase();
    const some = heads.filter((head) => Object.entries(FILTERS).every(([id, name]) =>
      !find(id).value || String(head[name]) === find(id).value.slice(1)));
    if (!wanted) return settle(some);
    const has = (value) => typeof value === "string" ? value.toLowerCase().includes(wanted)
      : Array.isArray(value) && value.some(has);
    const read = reads.map((text) => text !== "" && has(JSON.parse(text)));
    const found = [];
    const go = (from) => {
      if (mine !== search) return;
      const until = Math.min(some.length, from + 300);
      const wait = some.slice(from, until).map((head) => missing(head.number)).filter(Boolean);
      if (wait.length) {
        Promise.all(wait).then(() => go(from));
        return;
      }
      for (const head of some.slice(from, until)) {
        if (has(head.description) || has(head.task) || (head.read >= 0 && read[head.read])
          || has(JSON.parse(texts[head.number]))) found.push(head);
      }
      find("count").textContent = `searching: ${until} of ${some.length}`;
      if (until < some.length) setTimeout(go, 0, until); else settle(found);
    };
    go(0);
  };
  for (const [id, name] of Object.entries(FILTERS)) {
    const select = find(id), counts = new Map();
    for (const head of heads) counts.set(String(head[name]), (counts.get(String(head[name])) || 0) + 1);
    select.append(new Option("all", ""));
    // A letter in front: a value may be empty.
    for (const [value, count] of counts) select.append(new Option(`${value} (${count})`, `=${value}`));
  }
  const narrow = () => matchMedia("(max-width: 760px)").matches;

  // One episode.
  const part = (title, ...children) => make("div", "", null, make("h3", "", title), ...children);
  const said = (one) => {
    const box = make("div", "text said");
    if (!one.tokens) {
      box.textContent = one.said;
      return box;
    }
    for (const token of one.tokens) {
      const span = make("span", `t${tint(token.gap)}`, token.text);
      span.token = token;
      box.append(span);
    }
    // Only the first tokens of an episode have figures.
    const joined = one.tokens.map((token) => token.text).join("");
    if (one.said.startsWith(joined)) box.append(one.said.slice(joined.length));
    return box;
  };
  const facts = (pairs) => make("p", "facts", null, ...pairs.filter(([, value]) => value !== null && value !== "").map(
    ([name, value]) => make("span", "", `${name} `, make("b", "", value))));
  const figuresOf = (one) => {
    const gaps = gapsOf(one), gates = (one.tokens || []).map((token) => token.gate).filter((gate) => gate !== null);
    return facts([
      ["advantage", one.advantage === null ? "" : number(one.advantage)], ["reward", number(one.reward)],
      ["mean gap", gaps.length ? `${nats(mean(gaps))} nats` : ""],
      ["mean gate", gates.length ? (mean(gates) / 1000).toFixed(3) : ""],
      ["", one.valid ? "" : "not in the format"], ["", one.cut ? "cut at the length limit" : ""],
    ]);
  };
  const card = (one, i) => {
    const box = make("article", "turn", null, make("h3", "", `turn ${i + 1}`),
      make("div", "text seen", one.seen), said(one), figuresOf(one));
    if (one.tokens && one.tokens.length && current.turns[i + 1] && current.turns[i + 1].tokens === null
      && figures[current.head.number]) box.append(make("p", "small", "the tokens of later turns have no figures"));
    box.append(make("p", "small", `action: ${one.action}`));
    box.addEventListener("click", () => step(i, false));
    return box;
  };
  const siblings = () => {
    const own = current, advantages = own.turns.map((one) => one.advantage).filter((value) => value !== null);
    const self = [own.head.member, own.head.outcome, own.head.end, own.head.gain, mean(advantages),
      own.turns.map((one) => one.action)];
    const all = [self, ...own.siblings].sort((a, b) => a[0] - b[0]);
    return make("div", "cards", null, ...all.map(([member, outcome, end, gain, advantage, actions]) =>
      make("div", `card${member === own.head.member ? " own" : ""}`, null,
        make("div", outcome, `member ${member}${member === own.head.member ? " (this one)" : ""}`),
        facts([["end", end], ["return", number(gain)], ["advantage", number(advantage)]]),
        make("ol", "", null, ...actions.map((action) => make("li", "", action))))));
  };
  const rivals = () => heads.filter((head) => head.task === current.head.task && head.when !== current.head.when);
  // Pairs of turns of two episodes, [i, k], null where one has none: as many equal actions side by side as the order
  // allows, of these the ones that were taken in the same situation; between them other actions by their order.
  const aligned = (mine, theirs) => {
    const wide = theirs.length + 1, best = new Uint32Array((mine.length + 1) * wide);
    const worth = (i, k) => mine[i].action !== theirs[k].action ? 0 : mine[i].seen === theirs[k].seen ? 3 : 2;
    for (let i = mine.length - 1; i >= 0; i -= 1) {
      for (let k = theirs.length - 1; k >= 0; k -= 1) {
        const apart = Math.max(best[(i + 1) * wide + k], best[i * wide + k + 1]), equal = worth(i, k);
        best[i * wide + k] = equal ? Math.max(apart, equal + best[(i + 1) * wide + k + 1]) : apart;
      }
    }
    const pairs = [];
    let i = 0, k = 0, ours = [], others = [];
    const flush = () => {
      const longer = Math.max(ours.length, others.length);
      for (let n = 0; n < longer; n += 1) pairs.push([ours[n] ?? null, others[n] ?? null]);
      ours = [];
      others = [];
    };
    while (i < mine.length || k < theirs.length) {
      const inside = i < mine.length && k < theirs.length, equal = inside ? worth(i, k) : 0;
      if (equal && best[i * wide + k] === equal + best[(i + 1) * wide + k + 1]) {
        flush();
        pairs.push([i, k]);
        i += 1;
        k += 1;
      } else if (k >= theirs.length || (inside && best[i * wide + k] === best[(i + 1) * wide + k])) ours.push(i++);
      else others.push(k++);
    }
    flush();
    return pairs;
  };
  const compared = () => {
    const pairs = make("div", "pairs"), both = [current, other];
    const called = both.map((one) => one.head.when), counts = { same: 0, changed: 0, only: [0, 0] };
    both.forEach((one, side) => pairs.append(make("div", side ? "card other" : "card", null,
      make("div", one.head.outcome, `${one.head.when}, member ${one.head.member}`),
      facts([["end", one.head.end], ["return", number(one.head.gain)], ["turns", one.head.turns]]))));
    for (const at of aligned(current.turns, other.turns)) {
      const turns = at.map((i, side) => i === null ? null : both[side].turns[i]), alone = turns.indexOf(null);
      const same = alone < 0 && turns[0].action === turns[1].action;
      const kind = alone >= 0 ? "only" : same ? "same" : "changed";
      if (alone >= 0) counts.only[1 - alone] += 1;
      else counts[kind] += 1;
      turns.forEach((one, side) => {
        const box = make("div", `card ${kind}${side ? " other" : ""}${one ? "" : " none"}`);
        const word = { same: "the same action", changed: "another action", only: "only here" }[kind];
        if (one) {
          box.append(make("h3", "", `${called[side]}, turn ${at[side] + 1}: ${word}`));
          box.append(make("div", "text seen", one.seen), said(one), figuresOf(one));
          box.append(make("p", "small action", `action: ${one.action}`));
          if (!side) box.dataset.turn = at[side];
        } else box.append(make("p", "small", `no such turn in ${called[side]}`));
        pairs.append(box);
      });
    }
    const told = [[counts.same, "with the same action"], [counts.changed, "with another action"],
      [counts.only[0], `only in ${called[0]}`], [counts.only[1], `only in ${called[1]}`]];
    const sum = told.filter(([count]) => count).map(([count, what]) => `${count} ${what}`).join(", ");
    const how = `Turns side by side by their actions: ${sum || "none"}.`;
    return make("div", "comparison", null, make("p", "small", how), pairs);
  };
  const legend = () => {
    const box = make("div", "legend", null, make("span", "", "gap in nats: teacher rejects"));
    const words = EDGES.map((edge) => String(edge / 1000));
    for (let i = 4; i > 0; i -= 1) box.append(make("i", `g${-i}`, `-${words[i - 1]}`));
    box.append(make("i", "z", "0"));
    for (let i = 1; i <= 4; i += 1) box.append(make("i", `g${i}`, `+${words[i - 1]}`));
    box.append(make("span", "", "endorses"));
    return box;
  };
  let limit = 50, side = "both"; // of the slider, in hundredths of its way
  const threshold = () => 10 * 500 ** (limit / 100); // 0.01 to 5 nats, in thousandths
  const beyond = (low, high) => low !== null
    && ((side !== "up" && low <= -threshold()) || (side !== "down" && high >= threshold()));
  const tokenBar = () => {
    const slider = make("input"), words = make("span", "small"), sides = make("select");
    slider.type = "range";
    slider.id = "threshold";
    slider.max = "100";
    slider.value = String(limit);
    sides.id = "side";
    sides.setAttribute("aria-label", "which tokens");
    for (const [value, text] of [["both", "rejected or endorsed"], ["down", "rejected"], ["up", "endorsed"]]) {
      sides.append(new Option(text, value));
    }
    sides.value = side;
    const mark = () => {
      let count = 0;
      for (const span of find("episode").querySelectorAll(".t")) {
        const yes = beyond(span.token.gap, span.token.gap);
        span.classList.toggle("beyond", yes);
        count += yes;
      }
      const more = shown.filter((head) => beyond(head.low, head.high)).length;
      words.textContent = `${(threshold() / 1000).toFixed(2)} nats: ${count} here, in ${more} episodes`;
    };
    slider.addEventListener("input", () => { limit = Number(slider.value); mark(); });
    sides.addEventListener("change", () => { side = sides.value; mark(); });
    const label = make("label", "", "tokens beyond ", slider);
    const bar = make("div", "tools", null, label, sides, words);
    bar.mark = mark;
    return bar;
  };
  let bar = null, strip = null;
  const show = () => {
    const { head } = current, place = find("episode");
    const back = button("‹ list", () => {
      document.body.classList.remove("open");
      draw();
      reveal();
    }, "back to the list");
    back.id = "back";
    const compare = make("select");
    compare.id = "compare";
    compare.append(new Option("compare with ...", ""));
    for (const rival of rivals()) {
      compare.append(new Option(`${rival.when}, member ${rival.member}, ${rival.outcome}`, rival.number));
    }
    compare.disabled = compare.options.length === 1;
    if (compare.disabled) compare.options[0].textContent = "no other iteration";
    compare.value = other ? String(other.head.number) : "";
    compare.addEventListener("change", () => contrast(compare.value === "" ? null : heads[Number(compare.value)]));
    strip = make("div", "strip", null, ...current.turns.map((one, i) => {
      const gap = mean(gapsOf(one));
      const told = gap === null ? one.action : `mean gap ${nats(gap)} nats: ${one.action}`;
      const item = button(String(i + 1), () => step(i), told);
      item.className = tint(gap).trim();
      return item;
    }));
    bar = tokenBar();
    const coloured = figures[head.number] !== "";
    const steps = make("div", "bar", null, back, button("‹", () => step(turn - 1), "previous turn (←)"), strip,
      button("›", () => step(turn + 1), "next turn (→)"));
    const tools = make("div", "line", null, compare);
    if (coloured) {
      steps.append(make("span", "both", null, button("‹", () => jump(-1), "previous token beyond the threshold (p)"),
        button("token ›", () => jump(1), "next token beyond the threshold (n)")));
      tools.append(bar, legend());
    }
    place.replaceChildren(
      make("h2", head.outcome, head.description || head.task),
      facts([["", head.when], ["type", head.type], ["member", head.member], ["end", head.end],
        ["return", number(head.gain)], ["task", head.task]]),
      tools, steps);
    if (current.error) place.append(part("error", make("div", "text", current.error)));
    if (!coloured) {
      place.append(make("p", "small",
        "No figures of tokens were recorded for this episode, or there was no room for them."));
    }
    if (current.reads !== null) {
      place.append(make("details", "", null, make("summary", "", "what the teacher read"),
        make("div", "text seen", current.reads || "(nothing)")));
    }
    if (current.opening) place.append(part("opening", make("div", "text seen", current.opening)));
    if (other) place.append(compared());
    else {
      place.append(...current.turns.map(card));
      if (current.last) place.append(part("after the last action", make("div", "text seen", current.last)));
    }
    if (current.siblings.length) place.append(part("the group, side by side", siblings()));
    bar.mark();
  };
  let asked = null;
  const open = (head, quiet) => {
    asked = head;
    const wait = missing(head.number);
    if (wait) {
      wait.then(() => { if (asked === head) open(head, quiet); });
      return;
    }
    current = episode(head);
    other = null;
    spot = null;
    hide();
    if (!quiet) document.body.classList.add("open");
    show();
    find("episode").scrollTop = 0;
    step(0, false);
    reveal();
    counted();
    draw();
  };
  const contrast = (head) => {
    const own = current, wait = head && missing(head.number);
    if (wait) {
      wait.then(() => { if (current === own) contrast(head); });
      return;
    }
    other = head && episode(head);
    spot = null;
    hide();
    show();
    step(0, false);
  };
  const step = (to, scroll = true) => {
    if (!current || !current.turns.length) return;
    turn = Math.max(0, Math.min(current.turns.length - 1, to));
    [...strip.children].forEach((item, i) => item.setAttribute("aria-current", String(i === turn)));
    const chosen = strip.children[turn];
    strip.scrollLeft = chosen.offsetLeft - strip.offsetLeft - strip.clientWidth / 2;
    const cards = find("episode").querySelectorAll(".turn");
    cards.forEach((box, i) => box.setAttribute("aria-current", String(i === turn)));
    const pair = find("episode").querySelector(`.pairs > [data-turn="${turn}"]`);
    if (scroll) (cards[turn] || pair)?.scrollIntoView({ block: "start" });
  };
  const move = (by) => {
    const at = current ? shown.indexOf(current.head) : -1;
    const to = at < 0 ? (by > 0 ? 0 : -1) : at + by;
    if (shown[to]) open(shown[to]);
  };

  // Tokens by gap: the next one here, or else in the next episode that has one. What is asked for while an episode's
  // figures are on their way follows once they are here, unless another episode was opened.
  let waiting = null;
  const jump = (by) => {
    if (!current) return;
    if (waiting && waiting.from === current) {
      waiting.asked.push(by);
      return;
    }
    const spans = [...find("episode").querySelectorAll(".t.beyond")];
    const at = spot ? spans.indexOf(spot) : by > 0 ? -1 : spans.length;
    let next = spans[at + by];
    for (let i = shown.indexOf(current.head) + by; !next && i >= 0 && i < shown.length; i += by) {
      if (beyond(shown[i].low, shown[i].high)) {
        const wait = missing(shown[i].number);
        if (wait) {
          const own = waiting = { from: current, asked: [by] };
          wait.then(() => {
            if (waiting !== own) return;
            waiting = null;
            if (current === own.from) own.asked.forEach(jump);
          });
          return;
        }
        open(shown[i]);
        const here = [...find("episode").querySelectorAll(".t.beyond")];
        next = by > 0 ? here[0] : here[here.length - 1];
      }
    }
    if (!next) return;
    spot?.classList.remove("here");
    spot = next;
    spot.classList.add("here");
    const cards = [...find("episode").querySelectorAll(".turn")];
    const at_ = cards.indexOf(spot.closest(".turn"));
    if (at_ >= 0) step(at_, false);
    spot.scrollIntoView({ block: "nearest" });
    explain(spot);
  };
  const tip = find("tip");
  const hide = () => { tip.hidden = true; };
  const explain = (span) => {
    const { text, gap, gate, student, teacher } = span.token;
    const chance = (value) => value === null ? "" : ` (${(100 * Math.exp(value / 1000)).toPrecision(3)} %)`;
    const opens = gate === null ? "not finite" : (gate / 1000).toFixed(3);
    tip.textContent = `${JSON.stringify(text)}\ngap ${nats(gap)} nats, gate ${opens}\n`
      + `student ${nats(student)}${chance(student)}\nteacher ${nats(teacher)}${chance(teacher)}`;
    tip.hidden = false;
    tip.owner = span;
    const box = span.getBoundingClientRect(), own = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - own.width - 8))}px`;
    const below = box.bottom + own.height + 8 < innerHeight;
    tip.style.top = `${below ? box.bottom + 6 : Math.max(8, box.top - own.height - 6)}px`;
  };
  const place = find("episode");
  place.addEventListener("pointerover", (event) => {
    if (event.target.token) explain(event.target);
    else if (tip.owner !== spot) hide();
  });
  place.addEventListener("click", (event) => { if (event.target.token) explain(event.target); else hide(); });
  place.addEventListener("scroll", () => { if (!tip.hidden) explain(tip.owner); }, { passive: true });
  list.addEventListener("scroll", draw, { passive: true });
  addEventListener("resize", draw);

  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("filters").addEventListener("reset", () => setTimeout(filter));
  for (const id of [...Object.keys(FILTERS), "order"]) find(id).addEventListener("change", filter);
  let wait = 0;
  find("text").addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(filter, 150); });
  find("keys").addEventListener("click", () => {
    find("help").hidden = !find("help").hidden;
    find("keys").setAttribute("aria-expanded", String(!find("help").hidden));
  });
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
  root.dataset.theme = dark.matches ? "dark" : "light";
  dark.addEventListener("change", () => { root.dataset.theme = dark.matches ? "dark" : "light"; });
  find("theme").addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  });
  const KEYS = {
    j: () => move(1), k: () => move(-1), ArrowRight: () => step(turn + 1), ArrowLeft: () => step(turn - 1),
    n: () => jump(1), p: () => jump(-1), "?": () => find("keys").click(), d: () => find("compare")?.focus(),
    "/": () => { document.body.classList.remove("open"); find("text").focus(); },
    Escape: () => { hide(); document.body.classList.remove("open"); },
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const listed = event.target === list && { ArrowDown: () => move(1), ArrowUp: () => move(-1) }[event.key];
    const act = listed || KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  const notes = [];
  if (about.damaged) notes.push(`${about.damaged} damaged lines of the file were passed over.`);
  const bound = `a page has at most ${about.most / 1e6} MB.`;
  if (about.without_figures) {
    notes.push(`The oldest ${about.without_figures} episodes are shown without the figures of their tokens: ${bound}`);
  }
  if (about.left_out) notes.push(`The oldest ${about.left_out} episodes are left out: ${bound}`);
  if (before && !window.DecompressionStream) notes.push(`The oldest ${before} episodes need a newer browser.`);
  find("notes").textContent = notes.join(" ");
  filter();
  requestAnimationFrame(() => setTimeout(() => {
    document.body.dataset.ready = String(Math.round(performance.now()));
  }));
})();
