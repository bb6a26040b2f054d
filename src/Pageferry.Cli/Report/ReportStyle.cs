namespace Pageferry.Cli;

/// <summary>How a report's page looks: light or dark as the reader's system is, on paper light. The colours can be told apart by the colour-blind too.</summary>
internal static class ReportStyle
{
    /// <summary>The style sheet.</summary>
    internal const string Sheet = """

        :root{color-scheme:light dark;--paper:#fff;--ink:#1c2127;--quiet:#5b6672;--line:#dfe3e8;--ground:#f4f6f8;--still:#c2185b;--good:#0a7d4f;--bad:#b3261e;
        --precopy:#0072b2;--demand:#d55e00;--background:#009e73;--zero:#a7b0ba;--dirty:#8e3c97;--badge:#fff}
        @media (prefers-color-scheme:dark){:root{--paper:#14181d;--ink:#e6eaee;--quiet:#9aa5b1;--line:#2c333b;--ground:#1c2229;--still:#ff6b9d;--good:#4cc38a;--bad:#ff8078;
        --precopy:#56b4e9;--demand:#ff8c3a;--background:#2fc79a;--zero:#66717d;--dirty:#d28be0;--badge:#14181d}}
        *{box-sizing:border-box}
        body{margin:0 auto;padding:24px 20px 48px;max-width:1100px;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;overflow-wrap:anywhere}
        h1{font-size:1.6rem;line-height:1.25;margin:0 0 4px}
        h2{font-size:1.15rem;margin:36px 0 8px}
        p{margin:4px 0 10px}
        .quiet,figcaption{color:var(--quiet)}
        .badge{display:inline-block;padding:0 10px;border-radius:12px;font-size:.9rem;font-weight:600;vertical-align:middle;color:var(--badge);background:var(--quiet)}
        .badge.completed{background:var(--good)}.badge.failed,.badge.stalled{background:var(--bad)}
        .error{border-left:4px solid var(--bad);padding:8px 12px;background:var(--ground);margin:16px 0}
        .tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:20px 0 0}
        .tile{background:var(--ground);border-radius:8px;padding:10px 14px}
        .tile b{display:block;font-size:1.35rem;line-height:1.3;font-weight:650}
        .tile span{display:block;color:var(--quiet);font-size:.87rem}
        ol.decisions{list-style:none;margin:0;padding:0}
        ol.decisions li{display:grid;grid-template-columns:2.4em 6.5em 1fr;gap:8px;padding:5px 0;border-top:1px solid var(--line)}
        ol.decisions .at{color:var(--quiet);text-align:right;font-variant-numeric:tabular-nums}
        ol.decisions .n{justify-self:start;min-width:1.9em;padding:0 .5em;height:1.6em;line-height:1.6em;border-radius:.8em;text-align:center;background:var(--ink);color:var(--paper);font-size:.82rem;font-weight:600}
        figure{margin:0}
        .plot{overflow-x:auto}
        svg{display:block;width:100%;min-width:760px;height:auto;font-size:14px;fill:var(--ink)}
        table{border-collapse:collapse;width:100%}
        th,td{text-align:left;vertical-align:top;padding:5px 12px 5px 0;border-top:1px solid var(--line);font-weight:400}
        th{color:var(--quiet)}
        .facts th{width:34%}
        td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
        .pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));column-gap:40px}
        .pair h2{margin-bottom:4px}
        .legend{display:flex;flex-wrap:wrap;gap:4px 22px;margin:10px 0 0;padding:0;list-style:none}
        .legend i{display:inline-block;width:14px;height:14px;border-radius:3px;margin-right:7px;vertical-align:-2px;background:var(--c)}
        .legend .precopy{--c:var(--precopy)}.legend .demand{--c:var(--demand)}.legend .background{--c:var(--background)}.legend .zero{--c:var(--zero)}.legend .still{--c:var(--still)}
        svg .title{font-weight:600;paint-order:stroke;stroke:var(--paper);stroke-width:5px}svg .end{text-anchor:end;fill:var(--quiet)}svg .middle{text-anchor:middle}svg .small{font-size:12px;fill:var(--quiet)}
        svg .grid{stroke:var(--line)}svg .axis{stroke:var(--quiet)}svg .ground{fill:var(--ground)}
        svg .round{stroke:var(--quiet);stroke-dasharray:2 3;opacity:.7}
        svg .standstill{fill:var(--still);opacity:.28}
        svg .span{fill:var(--ground);stroke:var(--line)}svg .span.odd{fill:var(--precopy);fill-opacity:.3}svg .span.even{fill:var(--precopy);fill-opacity:.14}svg .span.after{fill:var(--background);fill-opacity:.28}svg .span.still{fill:var(--still);stroke:none}
        svg .decision{fill:var(--ink)}svg .number{fill:var(--paper);font-weight:600;font-size:13px}
        svg .area{stroke:none;opacity:.75}svg .area.precopy{fill:var(--precopy)}svg .area.demand{fill:var(--demand)}svg .area.background{fill:var(--background)}
        svg .wire{fill:none;stroke:var(--ink);stroke-width:1.6}
        svg .dirty{fill:none;stroke:var(--dirty);stroke-width:3.5;stroke-dasharray:9 3}
        svg .remaining{fill:none;stroke:var(--ink);stroke-width:1.8}svg .remaining-area{fill:var(--quiet);opacity:.2}
        svg .cell{fill:none;shape-rendering:crispEdges}svg .cell.precopy{stroke:var(--precopy)}svg .cell.demand{stroke:var(--demand)}svg .cell.background{stroke:var(--background)}svg .cell.zero{stroke:var(--zero)}
        svg .depth0{opacity:.4}svg .depth1{opacity:.7}svg .demand.depth0{opacity:.75}svg .demand.depth1{opacity:.9}
        svg .bar{fill:var(--zero)}svg .cause-demand{fill:var(--demand)}svg .cause-arriving{fill:var(--background)}svg .cause-present{fill:var(--precopy)}
        svg .percentile{stroke:var(--ink);stroke-dasharray:3 3}
        @media (max-width:640px){body{padding:16px 14px 40px}h1{font-size:1.3rem}svg{font-size:16px}ol.decisions li{grid-template-columns:2.4em 1fr}ol.decisions .at{text-align:left}ol.decisions .why{grid-column:1/3}.facts th{width:42%}}
        @media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--quiet:#444;--line:#ccc;--ground:#f2f2f2;--still:#c2185b;--good:#0a7d4f;--bad:#b3261e;--precopy:#0072b2;--demand:#d55e00;--background:#009e73;--zero:#a7b0ba;--dirty:#8e3c97;--badge:#fff}
        body{max-width:none;padding:0;font-size:10pt;print-color-adjust:exact;-webkit-print-color-adjust:exact}svg{min-width:0}figure,.tiles,li,tr{break-inside:avoid}h2{break-after:avoid}.plot{overflow:visible}}

        """;
}
