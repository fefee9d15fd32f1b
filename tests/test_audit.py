"The audit against slow and plain arithmetic, in little memory, as a page and as a gate."

import json
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from cocoift.conversation import Conversation, Origin, Round, conversation, write_jsonl
from cocoift.data.build.blocklist import Blocklist
from cocoift.data.build.export import to_llava, to_messages
from cocoift.data.inspect.audit import audit, audit_path, leakage
from cocoift.data.inspect.gate import check_gate, parse_gate
from cocoift.data.inspect.survey import survey
from cocoift.files import UserError
from cocoift.formats import TERSE_FORMATS, is_terse, keeps, normalise

ANSWERS = {
    "free": ["Calm.", "It is calm at the pier today."],
    "short": ["Calm", "It is very calm today."],
    "words:6": ["It is calm at the pier.", "No."],
    "yes_no": ["Yes", "Sure"],
}


def chance(number: int = 300, seed: int = 0) -> list[Conversation]:
    "Conversations of every kind: of several sources, about no, one or several images, with repeated questions."
    rng, made = random.Random(seed), []
    for k in range(number):
        images = [f"coco:{n}" for n in rng.sample(range(60), rng.choice([0, 1, 1, 1, 1, 2, 3]))]
        rounds = []
        for _ in range(rng.randint(1, 5)):
            format = rng.choice(list(ANSWERS))
            origin = Origin(rng.choice(["vqav2", "okvqa", "vsr", "aokvqa"]), str(k))
            rounds.append(Round(f"What is it like, {rng.randrange(9)}?", rng.choice(ANSWERS[format]), format, origin))
        made.append(Conversation(f"c{k}", tuple(images), tuple(rounds)))
    return made


def plain(conversations: list[Conversation], source: str | None = None) -> dict:
    "The same numbers, counted one by one."
    groups, terse, switch, kept, asked, seen = {True: [], False: []}, [], [], [], [], set()
    for c in conversations:
        before = False
        for number, r in enumerate(c.rounds):
            if source in (None, r.origin.source):
                if number and r.format == "free":
                    groups[before].append(is_terse(r.response))
                terse += [r.format not in TERSE_FORMATS] * is_terse(r.response)
                switch += [is_terse(c.rounds[number - 1].response) != is_terse(r.response)] * bool(number)
                kept += [keeps(r.format, r.response)] * (r.format != "free")
                key = c.images or c.image, normalise(r.instruction)
                asked.append(key in seen)
                seen.add(key)
            before = before or r.format in TERSE_FORMATS
    mean = lambda some: sum(some) / len(some) if some else None  # noqa: E731
    after, without = mean(groups[True]), mean(groups[False])
    return {
        "carry_over": None if None in (after, without) else after - without,
        "bare_terse": mean(terse),
        "switches": mean(switch),
        "obedience": mean(kept),
        "duplicates": mean(asked),
    }


@pytest.mark.parametrize("seed", range(4))
def test_plain_arithmetic(seed):
    conversations = chance(seed=seed)
    found = audit(conversations)
    for name, mine in [(None, found), *found["by_source"].items()]:
        expected = plain(conversations, name)
        assert {key: mine[key]["value"] if key == "carry_over" else mine[key] for key in expected} == pytest.approx(
            expected
        )
    assert found["conversations"] == 300 and found["images"] == len(
        {image for c in conversations for image in c.images}
    )
    assert (
        found["rounds"]
        == sum(m["rounds"] for m in found["by_source"].values())
        == sum(len(c.rounds) for c in conversations)
    )
    assert {int(k): n for k, n in found["rounds_histogram"].items()} == Counter(len(c.rounds) for c in conversations)
    assert found["formats"] == Counter(r.format for c in conversations for r in c.rounds)


def test_intervals_hold_the_value():
    for key, e in {**(found := audit(chance()))["intervals"], "carry_over": found["carry_over"]}.items():
        assert e["low"] < e["value"] < e["high"], key
    few, many = audit(chance(60))["carry_over"], audit(chance(2000))["carry_over"]
    assert many["high"] - many["low"] < 0.5 * (few["high"] - few["low"])


def test_overlap_and_leakage():
    conversations = chance()
    of, rounds_on = defaultdict(set), Counter()
    for c in conversations:
        for r in c.rounds:
            for image in c.images:
                of[r.origin.source].add(image)
            rounds_on[r.origin.source] += bool({"coco:3", "coco:40"} & set(c.images))
    overlap = audit(conversations)["overlap"]
    assert overlap["matrix"] == [[len(of[a] & of[b]) for b in overlap["sources"]] for a in overlap["sources"]]
    exact = Counter(tuple(sorted(name for name in of if image in of[name])) for image in set().union(*of.values()))
    assert {tuple(row["sources"]): row["images"] for row in overlap["intersections"]} == exact
    assert overlap["rest"] == {"intersections": 0, "images": 0}
    leak = leakage(survey(conversations), Blocklist("mine", frozenset({"coco:3", "coco:40", "coco:99", "vg:1"}), 3, ()))
    assert (leak["size"], leak["images"], leak["rounds"], leak["by_source"]) == (3, 2, rounds_on.total(), rounds_on)


def test_text_alone():
    found = audit([replace(c, images=()) for c in chance(50)])
    assert found["images"] == 0 and found["overlap"]["intersections"] == [] and found["carry_over"]["value"] is not None


def test_chinese_is_counted_by_characters():
    rounds = [("他在玩水上漂吗？", "是的。"), ("图中有什么？", "水面上有一条船。"), ("是什么颜色的？", "银色的。")]
    found = audit([conversation(f"coco:{k}", *rounds) for k in range(20)])
    assert found["switches"] == 1 and found["words_histogram"] == {"2": 20, "3": 20, "7": 20}
    assert found["diversity"]["asks"] == {"found": 0, "kinds": 0, "effective": None, "top": {}}
    assert found["diversity"]["distinct_instructions"] == 3 / 60


def test_diversity_does_not_fall_with_size():
    def instructions(number):
        rng = random.Random(0)
        words = [f"thing{k}" for k in range(400)]
        return [
            conversation(f"coco:{k}", (f"What color is the {rng.choice(words)} by the {rng.choice(words)}?", "Red"))
            for k in range(number)
        ]

    few, many = (audit(instructions(number))["diversity"] for number in (500, 20_000))
    for key in ("type_token", "distinct_2", "distinct_3"):
        assert few[key] == pytest.approx(many[key], rel=0.1)
    assert audit(instructions(20))["diversity"]["type_token"] is None
    assert many["asks"]["top"] == {"what color": 1.0} and many["instructions"] == 10_000


# Files


def sharegpt(c: Conversation) -> dict:
    names = {"human": "user", "gpt": "assistant"}
    turns = [{**turn, "from": names[turn["from"]]} for turn in to_llava(c)["conversations"]]
    return to_llava(c) | {"conversations": [{"from": "system", "value": "Be kind."}, *turns]}


@pytest.mark.parametrize(
    "name, written",
    [
        ("llava.json", lambda cs: json.dumps([to_llava(c) for c in cs])),
        ("sharegpt.json", lambda cs: json.dumps([sharegpt(c) for c in cs])),
        ("messages.jsonl", lambda cs: "\n".join(json.dumps(to_messages(c)) for c in cs)),
    ],
)
def test_foreign_files(tmp_path, name, written):
    said = {
        "free": "",
        "short": " Answer the question using a single word or phrase.",
        "words:6": " Answer in 6 words.",
        "yes_no": " Answer yes or no.",
    }
    spoken = lambda r: replace(r, instruction=r.instruction + said[r.format], origin=Origin("coco"))  # noqa: E731
    ours = [replace(c, rounds=tuple(map(spoken, c.rounds))) for c in chance() if c.images]
    (tmp_path / name).write_text(written(ours))
    write_jsonl(tmp_path / "ours.jsonl", ours)
    foreign, own = audit_path(tmp_path / name), audit_path(tmp_path / "ours.jsonl")
    assert foreign == own


PEAK = """
import sys
from cocoift.data.inspect.audit import audit_path
from cocoift.files import peak_mb
print(audit_path(sys.argv[1])["rounds"], peak_mb())
"""


@pytest.mark.slow
def test_memory_stays_flat(tmp_path):
    """LLaVA's mix has 3.4 million rounds: from two sizes of a file of its shape follows that it is audited in under 1
    GB (2 is the limit)."""
    peaks = {}
    for size in (20_000, 140_000):
        rng = random.Random(0)
        with open(tmp_path / "mix.json", "w") as file:
            file.write("[")
            for k in range(size // 5):
                asked = [f"What color is the thing number {rng.randrange(10**6)}?" for _ in range(5)]
                asked[0] += "\nAnswer the question using a single word or phrase."
                turns = [
                    {"from": who, "value": said}
                    for text in asked
                    for who, said in (("human", text), ("gpt", f"Red {k}"))
                ]
                record = {"id": str(k), "image": f"coco/train2017/{k % 118_000:012d}.jpg", "conversations": turns}
                file.write(("," if k else "") + json.dumps(record) + "\n")
            file.write("]")
        rounds, peak = subprocess.run(
            [sys.executable, "-c", PEAK, tmp_path / "mix.json"], check=True, capture_output=True, text=True
        ).stdout.split()
        peaks[int(rounds)] = float(peak)
    (small, low), (large, high) = peaks.items()
    assert low + (high - low) / (large - small) * 3_400_000 < 1000, peaks


# Gates


def test_gates():
    found = audit(chance(), [Blocklist("mine", frozenset({"coco:3"}), 1, ())])
    told = lambda text: check_gate(parse_gate(text), found)  # noqa: E731
    value = found["carry_over"]["value"]
    assert told(f"carry_over<={value + 0.01}") == {
        "gate": f"carry_over<={value + 0.01}",
        "value": value,
        "passed": True,
    }
    assert (
        not told("carry_over<=-0.9")["passed"]
        and told("carry_over.high >= -1")["passed"]
        and told("by_source.vqav2.obedience>=0")["passed"]
    )
    assert (
        not told("leakage.mine.images<=0")["passed"]
        and told("duplicates<=1")["passed"]
        and told("intervals.switches<=1")["passed"]
    )
    # undefined
    assert not check_gate(parse_gate("carry_over>=-1"), audit([conversation("coco:1", ("Hi.", "Hi."))]))["passed"]
    for text, says in [
        ("carry_over", "is no gate"),
        ("carry_over<=x", "is no gate"),
        ("carry<=1", "the audit has no carry"),
        ("overlap<=1", "is no number"),
        ("formats<=1", "is no number"),
        ("switches.low<=1", "a number already"),
    ]:
        with pytest.raises(UserError, match=f"--gate {re.escape(text)}.*{says}"):
            told(text)


# The page


def loads(page: str) -> list[str]:
    found = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.extend(
                value
                for name, value in attributes
                if name in ("src", "href", "srcset", "data", "poster", "action") and value
            )

    Tags().feed(page)
    return [place for place in found if not place.startswith(("data:", "#part-"))]


def test_page(tmp_path, shared):
    from plotly.offline import get_plotlyjs

    from cocoift.reports.audit_page import write_audit

    hostile = '"><script>alert(1)</script><img src="http://evil.example/x.png">'
    evil = Round(hostile, "Calm", "short", Origin(hostile)), Round("Why?", "Calm", "free", Origin(hostile))
    said = chance() + [Conversation(hostile, ("coco:310196",), evil)]
    write_jsonl(tmp_path / "set.jsonl", said)
    found = write_audit(
        tmp_path / "set.jsonl",
        tmp_path / "page.html",
        ["pope"],
        shared / "data/bench",
        shared / "data/coco-mini/images",
    )
    page = (tmp_path / "page.html").read_text()
    ours = page.replace(get_plotlyjs(), "")
    assert "default-src 'none'" in page and not loads(ours) and "<script>alert" not in ours
    assert f"{found['carry_over']['value']:.2f}".replace("-", "−") in ours and f"{found['rounds']:,}" in ours
    leak = found["leakage"]["pope"]
    assert [leak[key] for key in ("size", "images", "rounds", "by_source")] == [500, 1, 2, {hostile: 2}]
    for title in (
        "At a glance",
        "What it teaches about rounds",
        "What is asked, and how long",
        "Whose images",
        "Leakage",
        "Dialogs",
    ):
        assert f"<h2>{title}</h2>" in ours
    figures = [
        json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', ours, flags=re.S)
    ]
    assert len(figures) == 8 and all(figure["data"] for figure in figures)
    assert found == audit_path(tmp_path / "set.jsonl", ["pope"], shared / "data/bench")


def test_page_of_little(tmp_path):
    from cocoift.reports.audit_page import write_audit

    write_jsonl(tmp_path / "set.jsonl", [conversation(None, ("Hi.", "Hello."))])
    write_audit(tmp_path / "set.jsonl", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert (
        "Carry-over is undefined" in page
        and "Whose images" not in page
        and "No benchmark was named" in page
        and "Dialogs</h2>" not in page
    )


def test_page_in_a_browser(tmp_path, shared):
    sync_api = pytest.importorskip("playwright.sync_api")
    from cocoift.reports.audit_page import write_audit

    write_jsonl(tmp_path / "set.jsonl", chance())
    write_audit(tmp_path / "set.jsonl", tmp_path / "page.html", ["pope"], shared / "data")
    with sync_api.sync_playwright() as playwright:
        browser = next(
            (found for found in map(lambda place: opened(playwright, place), (None, "/usr/bin/chromium")) if found),
            None,
        )
        if browser is None:
            pytest.skip("no Chromium")
        page, said, asked = browser.new_page(viewport={"width": 390, "height": 800}), [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_function("document.querySelectorAll('.plot .main-svg').length >= 7")
        assert (
            not said
            and all(url.startswith(("data:", "blob:", "file:")) for url in asked)
            and sum(url.startswith("file:") for url in asked) == 1
        )
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0  # nothing wider than a phone
        browser.close()


def opened(playwright, place):
    try:
        return playwright.chromium.launch(executable_path=place, args=["--no-sandbox"])
    except Exception:
        return None


# The command


@pytest.fixture(scope="module")
def mix(shared):
    return shared / "data/sources/llava/documented_examples_llava_v1_5_mix665k.json"


def test_command(typed, mix, shared, tmp_path):
    done = typed(
        "audit",
        mix,
        "--json",
        "--html",
        tmp_path / "page.html",
        "--against",
        "pope",
        "--against",
        mix,
        "--data",
        shared / "data",
        "--gate",
        "rounds>=1",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (
        found["gates"] == [{"gate": "rounds>=1", "value": 14, "passed": True}]
        and found["leakage"]["pope"]["images"] == 0
    )
    assert found["leakage"][str(mix)]["images"] == 8  # itself: all but a book cover
    assert (tmp_path / "page.html").stat().st_size > 1_000_000


def test_a_gate_that_is_not_kept(typed, mix, tmp_path):
    done = typed("audit", mix, "--json", "--gate", "carry_over<=0.1", "--gate", "rounds>=1")
    assert done.returncode == 1 and json.loads(done.stdout)["gates"][0]["passed"] is False
    assert done.stderr == "cocoift audit: carry_over<=0.1 is not kept: it is 0.667\n"
    write_jsonl(tmp_path / "set.jsonl", [conversation("coco:1", ("Hi.", "Hello."))])
    done = typed("audit", tmp_path / "set.jsonl", "--gate", "carry_over<=1")
    assert (
        done.returncode == 1
        and "undefined" in done.stdout
        and done.stderr == "cocoift audit: carry_over<=1 is not kept: it is undefined\n"
    )


@pytest.mark.parametrize(
    "options, says",
    [
        (["--gate", "carry_over<0.1"], ["--gate carry_over<0.1: is no gate", "carry_over<=0.1"]),
        (["--gate", "carry<=1"], ["--gate carry<=1", "the audit has no carry"]),
        (["--against", "poep"], ["poep: is no benchmark", "pope"]),
        (["--against", "pope"], ["--against pope", "--data"]),
        (["--against", "pope", "--data", "nowhere"], ["nowhere: no such folder"]),
        (["--html", "."], [".: is a folder"]),
    ],
)
def test_wrong_options(typed, mix, tmp_path, options, says):
    done = typed("audit", mix, *options, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("cocoift audit: ")
    assert all(part in done.stderr for part in says), done.stderr
    assert not list(tmp_path.iterdir())
