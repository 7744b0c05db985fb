"""The report's style sheet. Light and dark follow the reader's system; nothing is loaded."""

LIGHT = """
--paper:#f6f5f1; --card:#ffffff; --ink:#1b1c1e; --soft:#5d6167; --faint:#8c9097; --rule:#e4e3dd;
--base:#b9b8b1; --accent:#2f6fcb; --second:#b35c00; --bad:#c8323c; --good:#1b7f4b; --warn:#a86b00;
--after:#1b1c1e0d; --code:#f3f2ed; --lead:#e9f0fa;
--peer-0:#2a78d6; --peer-1:#e0662f; --peer-2:#159a6d; --peer-3:#b98300; --peer-4:#d6578f;
--peer-5:#5b4bb5; --peer-6:#4f8a10; --peer-7:#c93b3b;
"""

DARK = """
--paper:#141517; --card:#1d1f22; --ink:#eceded; --soft:#a7abb1; --faint:#7d8288; --rule:#2e3135;
--base:#50545a; --accent:#6aa5f2; --second:#e39a4e; --bad:#f0707a; --good:#55c58a; --warn:#dba53c;
--after:#ffffff0f; --code:#17191b; --lead:#1d2838;
--peer-0:#5598ea; --peer-1:#ee8350; --peer-2:#3fbf92; --peer-3:#d9a92c; --peer-4:#ec82b2;
--peer-5:#9d8ff0; --peer-6:#86c146; --peer-7:#f07d7d;
"""

RULES = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:1120px;margin:0 auto;padding:40px 20px 64px}
h1{font-size:clamp(28px,5vw,40px);line-height:1.15;letter-spacing:-.02em;margin:0 0 10px}
h2{font-size:19px;letter-spacing:-.005em;margin:0 0 4px}
.over{color:var(--accent);font-size:13px;font-weight:600;letter-spacing:.08em;
text-transform:uppercase;margin:0 0 6px}
.tale{color:var(--soft);font-size:17px;max-width:74ch;margin:0 0 26px}
.say{color:var(--soft);font-size:14.5px;margin:0 0 14px;max-width:84ch}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;
margin:0 0 18px}
.card,section{background:var(--card);border:1px solid var(--rule);border-radius:12px}
.card{padding:14px 16px 13px}
.card.lead{background:var(--lead);border-color:transparent}
.card dt{color:var(--soft);font-size:13px}
.card dd{margin:0}
.card .value{font-size:27px;font-weight:650;letter-spacing:-.02em;line-height:1.3}
.card .more{color:var(--faint);font-size:13px;line-height:1.4}
section{padding:20px 22px;margin:0 0 18px;min-width:0}
.two{display:grid;grid-template-columns:1fr 1fr;gap:18px}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13.5px;color:var(--soft);
margin:0 0 10px;padding:0;list-style:none}
.legend svg{width:26px;height:10px;margin-right:7px;vertical-align:0;overflow:visible}
.scroll{overflow-x:auto}
.figure>svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font-size:13px;fill:var(--soft)}
svg .tick{font-size:12.5px;fill:var(--faint);font-variant-numeric:tabular-nums}
svg .mid{text-anchor:middle} svg .end{text-anchor:end} svg .start{text-anchor:start}
svg .peer{fill:var(--ink)} svg .name{fill:var(--soft);font-weight:600}
svg .kill-name{fill:var(--bad);font-weight:600} svg .join-name{fill:var(--good);font-weight:600}
.grid{stroke:var(--rule)} .base{stroke:var(--base)}
.raw{fill:none;stroke-width:1;opacity:.2} .curve{fill:none;stroke-width:2;stroke-linejoin:round}
.curve.accent{stroke:var(--accent);stroke-width:2.4} .curve.second{stroke:var(--second)}
.faint{fill:var(--accent);opacity:.22}
.move{fill:none;stroke:var(--ink);stroke-width:2.4;stroke-linecap:round;stroke-linejoin:round}
svg .on-bar{fill:var(--card);font-weight:600}
.kill{stroke:var(--bad);stroke-dasharray:4 3} .join{stroke:var(--good);stroke-dasharray:4 3}
.after{fill:var(--after)} .chord{fill:none;stroke:var(--accent)}
.node{stroke:var(--card);stroke-width:3}
.solo{fill:var(--card);stroke:var(--warn);stroke-width:2}
.failed,.dead{fill:none;stroke:var(--bad);stroke-width:2.4;stroke-linecap:round}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th{color:var(--soft);font-weight:600;font-size:13px}
th,td{text-align:right;padding:7px 10px;border-bottom:1px solid var(--rule);white-space:nowrap}
th:first-child,td:first-child,td.word,th.word{text-align:left}
tr:last-child td{border-bottom:0}
.met{width:auto;margin:6px auto 0;border-collapse:separate;border-spacing:3px;font-size:13px}
.met td{text-align:center;min-width:44px;border:0;padding:5px 4px} .met td.cell{border-radius:6px}
.met th{border:0;padding:5px 3px;text-align:center;font-size:12px}
.chip{display:inline-block;width:10px;height:10px;border-radius:50%;margin-right:8px}
.tag{font-size:12.5px;font-weight:600;border-radius:99px;padding:1px 9px;border:1px solid}
.tag.finished{color:var(--good)} .tag.killed{color:var(--bad)} .tag.left{color:var(--warn)}
.bars{display:grid;grid-template-columns:max-content 1fr max-content;gap:7px 12px;
align-items:center;font-size:14px;font-variant-numeric:tabular-nums}
.bars .track{height:14px;border-radius:3px}
.bars .track i{display:block;height:100%;border-radius:0 4px 4px 0;min-width:2px}
.three{display:grid;grid-template-columns:repeat(auto-fit,minmax(250px,1fr));gap:14px 30px}
h3{font-size:14px;color:var(--soft);margin:6px 0 8px;font-weight:600}
pre{background:var(--code);border:1px solid var(--rule);border-radius:8px;padding:14px 16px;
margin:0;font:13.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
white-space:pre-wrap;overflow-wrap:anywhere;max-height:440px;overflow-y:auto}
pre b{color:var(--accent);font-weight:600}
.words{display:grid;grid-template-columns:max-content 1fr;gap:8px 22px;margin:8px 0 0;
font-size:14.5px}
.words dt{font-weight:600} .words dd{margin:0;color:var(--soft)}
.span{stroke-width:1.5} .span.frozen{fill:var(--card);stroke:var(--accent)}
.span.far{fill:var(--warn);fill-opacity:.55}
.span.sick{fill:none;stroke:var(--warn);stroke-dasharray:3 2}
.back{fill:var(--good)} .tie{fill:none;stroke:var(--ink);stroke-width:.8}
.cursor{stroke:var(--accent);stroke-width:2} .meets{stroke:var(--accent);stroke-width:3}
.player{display:flex;gap:14px;align-items:center;margin:10px 0 4px}
.player input{flex:1;accent-color:var(--accent);min-width:0}
.player button{font:inherit;font-size:14px;font-weight:600;color:var(--accent);cursor:pointer;
background:none;border:1px solid var(--rule);border-radius:99px;padding:3px 0;width:74px}
.moment{display:grid;grid-template-columns:minmax(0,440px) 1fr;gap:8px 30px;align-items:center}
.ring svg{display:block;width:100%;height:auto;overflow:visible}
.is-up{stroke:var(--card)} .is-frozen{fill:var(--card);stroke:var(--accent);stroke-width:2.5}
.is-far{fill:var(--warn);stroke:var(--card)}
.is-gone{fill:none;stroke:var(--base);stroke-dasharray:3 3}
.is-sick{fill:var(--card);stroke:var(--warn);stroke-width:2.5;stroke-dasharray:3 2}
footer{color:var(--faint);font-size:13px;text-align:center;padding-top:10px}
@media (max-width:820px){.two,.moment{grid-template-columns:1fr;gap:0}}
@media print{.player,.moment{display:none}}
@media (max-width:620px){main{padding:26px 12px 40px} section{padding:16px 14px}
.cards{gap:8px;grid-template-columns:repeat(auto-fit,minmax(140px,1fr))} .card{padding:11px 12px}
.card .value{font-size:22px}
.wide>svg{min-width:720px} .words{grid-template-columns:1fr;gap:2px} .words dd{margin-bottom:9px}}
@media print{body{background:#fff} section,.card{break-inside:avoid}}
"""

SHEET = (
    f":root{{color-scheme:light dark;{LIGHT}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{DARK}}}}}"
    f"{RULES}"
)
