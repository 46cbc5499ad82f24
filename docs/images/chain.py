#!/usr/bin/env python3
"""Draws chain-light.svg and chain-dark.svg beside this file: the objects, their resources in AWS, and a call.

docs/images/chain.py writes both files; with --check it fails if they are not what it would write.
"""
import sys
from pathlib import Path

WIDTH, HEIGHT = 920, 400
FONT = "ui-sans-serif, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
THEMES = {
    "light": dict(text="#1f2328", soft="#59636e", line="#818b98", panel="#f6f8fa", box="#ffffff",
                  accent="#0969da", good="#1a7f37", bad="#b42318"),
    "dark": dict(text="#f0f6fc", soft="#b1bac4", line="#8b949e", panel="#161b22", box="#0d1117",
                 accent="#58a6ff", good="#3fb950", bad="#ff7b72"),
}


class Drawing:
    def __init__(self, colors):
        self.colors, self.parts = colors, []

    def add(self, part):
        self.parts.append("  " + part)

    def text(self, x, y, words, color="text", size=14, weight="normal", anchor="middle"):
        self.add(f'<text x="{x}" y="{y}" fill="{self.colors[color]}" font-size="{size}" '
                 f'font-weight="{weight}" text-anchor="{anchor}">{words}</text>')

    def panel(self, x, y, width, height, title):
        self.add(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" '
                 f'fill="{self.colors["panel"]}" stroke="{self.colors["line"]}" stroke-dasharray="4 4"/>')
        self.text(x + 14, y + 24, title, "soft", 13, anchor="start")

    def box(self, x, y, width, height, title, *lines, color="line"):
        self.add(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" '
                 f'fill="{self.colors["box"]}" stroke="{self.colors[color]}" stroke-width="1.5"/>')
        top = y + height / 2 + 5 - 9 * len(lines)
        self.text(x + width / 2, top, title, weight="600")
        for number, line in enumerate(lines, 1):
            self.text(x + width / 2, top + 18 * number, line, "soft", 12.5)

    def arrow(self, points, color="line", dashes=""):
        path = " L".join(f"{x} {y}" for x, y in points)
        extra = f' stroke-dasharray="{dashes}"' if dashes else ""
        self.add(f'<path d="M{path}" fill="none" stroke="{self.colors[color]}" stroke-width="1.8"'
                 f'{extra} marker-end="url(#{color})"/>')

    def svg(self):
        markers = "\n".join(
            f'    <marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{self.colors[name]}"/></marker>'
            for name in ("line", "accent", "good", "bad"))
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" role="img" font-family="{FONT}">',
            "  <title>An MtlsDomain and a ClientCertificate, what they become, and a call</title>",
            f"  <defs>\n{markers}\n  </defs>",
            *self.parts,
            "</svg>", ""])


def draw(colors):
    d = Drawing(colors)
    d.panel(10, 10, 480, 275, "your cluster")
    d.box(35, 50, 210, 56, "MtlsDomain", "name, trust, mappings", color="accent")
    d.box(35, 124, 210, 56, "ClientCertificate", "subject, duration", color="accent")
    d.box(35, 210, 210, 56, "Secret", "tls.crt, tls.key, ca.crt")
    d.box(315, 73, 150, 84, "mtls-operator", "observe, plan,", "execute, report", color="accent")
    d.panel(520, 10, 390, 380, "your AWS account")
    d.box(540, 50, 170, 56, "ACM", "server certificate")
    d.box(720, 50, 170, 56, "S3", "truststore, pinned")
    d.box(540, 122, 170, 56, "Route 53", "alias, ownership")
    d.box(720, 122, 170, 56, "execute-api", "endpoint disabled")
    d.box(540, 194, 350, 56, "API Gateway custom domain", "mutual TLS, API mappings", color="good")
    d.box(540, 310, 350, 56, "your HTTP and REST APIs")
    d.box(35, 320, 210, 56, "caller", "has key and certificate")
    d.arrow([(245, 78), (280, 78), (280, 100), (313, 100)], "accent")
    d.arrow([(245, 152), (280, 152), (280, 130), (313, 130)], "accent")
    d.arrow([(465, 115), (518, 115)], "accent")
    d.arrow([(390, 157), (390, 238), (247, 238)], "accent")
    d.text(318, 230, "once it is trusted", "soft", 12.5)
    d.arrow([(140, 266), (140, 318)], "line", "5 4")
    d.arrow([(245, 348), (505, 348), (505, 222), (538, 222)], "good")
    d.text(375, 339, "TLS with the certificate", "good", 12.5)
    d.arrow([(715, 250), (715, 308)], "good")
    d.text(725, 284, "any other caller is refused", "bad", 12.5, anchor="start")
    return d.svg()


def main():
    for theme, colors in THEMES.items():
        path, drawn = Path(__file__).with_name(f"chain-{theme}.svg"), draw(colors)
        if "--check" not in sys.argv[1:]:
            path.write_text(drawn, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != drawn:
            sys.exit(f"docs/images/{path.name} is stale: run docs/images/chain.py")


main()
