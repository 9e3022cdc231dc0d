"""Templates: values, expressions, texts, and what is wrong with them."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cas.diagnostics import Diagnostic, InvalidInput
from cas.template import MOST_CODE, MOST_MARKS, Engine, TemplateError, is_template

ROOT = Path(__file__).resolve().parent.parent
NAMES: dict[str, Any] = {
    "release": "1.4.0",
    "stages": ["build", "test", "publish"],
    "item": {"path": "outbox/a.org", "name": "a.org", "values": [1, 2], "weight": 1.5},
    "loop": {"index": 3, "first": False},
    "none_yet": None,
    "ready": True,
    "count": 3,
}


def value(text: str, **names: Any) -> Any:
    return Engine().value(text, {**NAMES, **names})


def truth(expression: str, **names: Any) -> Any:
    return Engine().truth(expression, {**NAMES, **names})


def text(source: str, read: Any = None, **names: Any) -> str:
    return Engine(read).text(source, {**NAMES, **names})


def wrong(source: str, **files: str) -> TemplateError:
    """What is wrong with a text whose includes are found among these files."""
    with pytest.raises(TemplateError) as caught:
        text(source, read=files.__getitem__ if files else None)
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize("plain", ["", "1.10", "no", "{", "}}", "%}", "{ {", "$HOME", "[1, 2]", "{a: b}", "#}"])
def test_a_text_without_the_marks_of_a_template_is_none_and_stays(plain: str):
    assert not is_template(plain)
    assert value(plain) == plain


@pytest.mark.parametrize("source", ["{{ a }}", "x{{", "{% if a %}", "{# words #}", "{{{macro}}}"])
def test_a_text_with_the_marks_of_a_template_is_one(source: str):
    assert is_template(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ stages }}", ["build", "test", "publish"]),
        ("{{ item }}", NAMES["item"]),
        ("{{ loop.index + 1 }}", 4),
        ("{{ ready }}", True),
        ("{{ none_yet }}", None),
        ("{{ item.weight }}", 1.5),
        ("{{ release }}", "1.4.0"),
        ("{{- count -}}", 3),
        ("{{\n  count\n}}", 3),
        ("{{ count, ready }}", [3, True]),
        ("{{ '}}' }}", "}}"),
        ("{{ '{{' ~ '}}' }}", "{{}}"),
        ("{{ {'a': {'b': 1}}['a'] }}", {"b": 1}),
        ("{{ count if ready else none_yet }}", 3),
        ("{{ nothing | default(7) }}", 7),
        ("{{ result }}", "named like what is inside"),
    ],
)
def test_one_expression_alone_keeps_its_type(source: str, expected: Any):
    found = value(source, result="named like what is inside")

    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ count }} ", "3 "),
        ("{{ count }}\n", "3\n"),
        ("{{ count }}{{ count }}", "33"),
        ("{{ '}}' }}{{ '{{' }}", "}}{{"),
        ("{{ count }}{# three #}", "3"),
        ("{% if ready %}{{ count }}{% endif %}", "3"),
        ("rel-{{ release }}", "rel-1.4.0"),
        ("{# nothing #}", ""),
        ("{{ count }}{% raw %}{{ count }}{% endraw %}", "3{{ count }}"),
    ],
)
def test_anything_beside_the_expression_makes_a_text(source: str, expected: str):
    assert value(source) == expected


def test_what_a_value_holds_is_not_rendered_again():
    assert value("{{ release }}", release="{{ stages }}") == "{{ stages }}"
    assert value("a {{ release }}", release="{{ stages }}") == "a {{ stages }}"


@pytest.mark.parametrize("shown", ["1.10", "010", "no", "12:30", "[1]", "None", "True"])
def test_a_text_that_looks_like_something_else_stays_a_text(shown: str):
    assert value("{{ release }}", release=shown) == shown
    assert value("{{ release }}{{ '' }}", release=shown) == shown


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ range(3) }}", [0, 1, 2]),
        ("{{ stages | map('upper') }}", ["BUILD", "TEST", "PUBLISH"]),
        ("{{ stages | reject('eq', 'test') }}", ["build", "publish"]),
        ("{{ stages | reverse }}", ["publish", "test", "build"]),
        ("{{ item.keys() }}", ["path", "name", "values", "weight"]),
        ("{{ {'b': 1, 'a': 2}.items() }}", [["b", 1], ["a", 2]]),
        ("{{ stages | batch(2) }}", [["build", "test"], ["publish"]]),
        ("{{ stages | groupby('0') | map('first') }}", ["b", "p", "t"]),
        ("{{ dict(b=1, a=(2, 3)) }}", {"b": 1, "a": [2, 3]}),
    ],
)
def test_whatever_is_like_a_list_is_a_list(source: str, expected: Any):
    assert value(source) == expected
    assert text(source) == str(expected)


def test_an_escaped_text_is_a_plain_one():
    assert type(value("{{ '<' | e }}")) is str
    assert value("{{ '<' | e }}") == "&lt;"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'rc' not in release", True),
        ("release.startswith('2.')", False),
        ("release", "1.4.0"),
        ("count - 3", 0),
        ("-count", -3),
        ("  ready  ", True),
        ("'}}' in '{{}}'", True),
        ("ready\n and count > 2", True),
        ("{'a': {'b': ready}}.a.b", True),
        ("relese is defined", False),
    ],
)
def test_an_expression_gives_whatever_it_gives(expression: str, expected: Any):
    assert truth(expression) == expected
    assert type(truth(expression)) is type(expected)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("{{ ready }}", "a template, not an expression"),
        ("ready }}{{ ready", "more than one expression"),
        ("ready }} and more {{ ''", "more than one expression"),
        ("ready count", "expected token `end of print statement`, got `count`"),
        ("(ready", "unexpected `}`"),
        ("", "expected an expression, got `end of print statement`"),
        ("'rc", 'unexpected char "`"'),
    ],
)
def test_what_is_not_one_expression_is_refused(expression: str, message: str):
    with pytest.raises(TemplateError) as caught:
        truth(expression)

    assert (caught.value.code, caught.value.line) == ("template-syntax", 1)
    assert str(caught.value).startswith(message.removesuffix('"`"'))


def test_braces_around_an_expression_come_with_what_to_do():
    with pytest.raises(TemplateError) as caught:
        truth("{{ ready }}")

    assert caught.value.hint == "write it without `{{` and `}}`"


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_a_text_keeps_its_end(end: str):
    assert text("* {{ release }}" + end) == "* 1.4.0" + end


def test_a_text_is_not_escaped():
    assert text("{{ name }} & <b>", name="<a> & 'b'") == "<a> & 'b' & <b>"


def test_a_loop_a_condition_and_a_macro_work():
    source = "{% macro row(s) %}- {{ s }}\n{% endmacro %}{% for s in stages if s != 'test' %}{{ row(s) }}{% endfor %}"

    assert text(source) == "- build\n- publish\n"


def test_what_is_counted_in_a_namespace_is_kept():
    source = "{% set seen = namespace(n=0) %}{% for s in stages %}{% set seen.n = seen.n + 1 %}{% endfor %}{{ seen.n }}"

    assert text(source) == "3"


def test_a_key_of_a_map_comes_before_a_method_of_maps():
    assert value("{{ item.values }}") == [1, 2]
    assert value("{{ item.update }}", item={"update": "now"}) == "now"
    assert value("{{ item.get('path') }}") == "outbox/a.org"


def test_a_map_keeps_its_order():
    order = {"b": 1, "a": {"d": 1, "c": 2}}

    assert text("{{ order | tojson }}", order=order) == '{"b": 1, "a": {"d": 1, "c": 2}}'
    assert list(value("{{ order }}", order=order)) == ["b", "a"]
    assert text("{% for key in order %}{{ key }}{% endfor %}", order=order) == "ba"


def test_a_mistyped_name_comes_with_the_nearest_one():
    error = wrong("* Release\n{{ relese }}\n")

    assert (error.code, str(error)) == ("undefined-variable", "`relese` is not defined")
    assert (error.line, error.file, error.hint) == (2, None, "did you mean `release`?")


def test_an_unknown_name_comes_with_those_that_there_are():
    with pytest.raises(TemplateError) as caught:
        Engine().value("{{ zzz }}", {"release": 1, "audience": 2})

    assert caught.value.hint == "there are: `audience`, `release`"


def test_where_there_are_many_names_some_are_shown():
    with pytest.raises(TemplateError) as caught:
        Engine().value("{{ zzz }}", {f"name{n:02}": n for n in range(30)})

    assert caught.value.hint.endswith("`name19`, …")


def test_where_there_are_no_names_none_are_shown():
    with pytest.raises(TemplateError) as caught:
        Engine().value("{{ zzz }}", {})

    assert caught.value.hint is None


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("{{ item.pth }}", "`item` has no `pth`", "did you mean `path`?"),
        ("{{ item['pth'] }}", "`item` has no `pth`", "did you mean `path`?"),
        ("{{ item[7] }}", "`item` has no element `7`", "there are: `name`, `path`, `values`, `weight`"),
        ("{{ stages[7] }}", "`stages` has no element `7`", None),
        ("{{ stages.pth }}", "`stages` has no `pth`", None),
        ("{{ release.pth }}", "a text has no `pth`", None),
        ("{{ count.pth }}", "a number has no `pth`", None),
        ("{{ ready.pth }}", "a boolean has no `pth`", None),
        ("{{ none_yet.pth }}", "null has no `pth`", None),
        ("{{ range(2)[7] }}", "a list has no element `7`", None),
        ("{{ {'path': 1}.pth }}", "a map has no `pth`", "did you mean `path`?"),
        ("{{ item.pth.deeper }}", "`item` has no `pth`", "did you mean `path`?"),
        ("{{ '{0.pth}'.format(item) }}", "`item` has no `pth`", "did you mean `path`?"),
        ("{{ range.pth }}", "a function has no `pth`", None),
        ("{{ cycler(1).pth }}", "an object of type `Cycler` has no `pth`", None),
    ],
)
def test_what_something_does_not_have_is_said_of_it(source: str, message: str, hint: str | None):
    error = wrong("\n\n" + source)

    assert (error.code, str(error), error.hint, error.line) == ("undefined-variable", message, hint, 3)


@pytest.mark.parametrize(
    "source",
    [
        "{{ [zzz] }}",
        "{{ {'a': zzz} }}",
        "{{ [zzz] | string }}",
        "{{ '%r' % [zzz] }}",
        "{{ '{!r}'.format(zzz) }}",
        "{{ zzz ~ 'a' }}",
        "{{ zzz == 1 }}",
        "{{ zzz in stages }}",
        "{{ not zzz }}",
        "{{ zzz is none }}",
        "{{ zzz is string }}",
        "{{ zzz is number }}",
        "{{ zzz is mapping }}",
        "{{ zzz | list }}",
        "{{ zzz | int }}",
        "{{ zzz | length }}",
        "{% if zzz %}{% endif %}",
        "{% for a in zzz %}{% endfor %}",
        "{{ loops.index if ready and zzz else 1 }}",
        "{% for a in [1] %}{{ zzz }}{% endfor %}",
    ],
)
def test_nothing_can_be_done_with_a_name_that_is_not_defined(source: str):
    assert (wrong(source).code, str(wrong(source))) == ("undefined-variable", "`zzz` is not defined")


def test_a_name_may_be_asked_for_and_replaced():
    assert value("{{ zzz is defined }}") is False
    assert value("{{ zzz | default('other') }}") == "other"
    assert value("{{ none_yet is none and count is number }}") is True


def test_an_if_without_else_gives_nothing_that_could_be_shown():
    error = wrong("{{ 'x' if not ready }}")

    assert error.code == "undefined-variable"
    assert str(error).startswith("the inline if-expression on line 1 evaluated to false")


@pytest.mark.parametrize("macro", ["{{{title}}}", "{{{author(me)}}}", "see {{{results(a, b)}}} there"])
def test_a_macro_of_org_mode_comes_with_how_to_write_it(macro: str):
    error = wrong("* Hello {{ release }}\n\n" + macro)

    assert (error.code, error.line) == ("template-syntax", 3)
    assert (
        error.hint == "a macro of org-mode is written `{{ '{{{' }}title}}}`, or between `{% raw %}` and `{% endraw %}`"
    )


def test_a_macro_of_org_mode_written_as_the_hint_says_is_one():
    assert text("{{ '{{{' }}title}}}") == "{{{title}}}"
    assert text("{% raw %}{{{title}}}{% endraw %}") == "{{{title}}}"


def test_an_error_in_another_line_says_nothing_of_macros():
    assert wrong("{% raw %}{{{title}}}{% endraw %}\n{{ release").hint is None


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("{{ release | uper }}", "no filter named `uper`", "did you mean `upper`?"),
        ("{{ release is lowr }}", "no test named `lowr`", "did you mean `lower`?"),
        ("{% inclde 'a' %}", "encountered unknown tag `inclde`", "did you mean `include`?"),
        ("{% zzz %}", "encountered unknown tag `zzz`", None),
        ("{{ release", "unexpected end of template, expected `end of print statement`", None),
        ("{{ release ! }}", "unexpected char `!`", None),
        ("{% if ready %}", None, None),
        ("{# never closed", "missing end of comment tag", None),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(source: str, message: str | None, hint: str | None):
    error = wrong("first\n" + source)

    assert (error.code, error.line, error.hint) == ("template-syntax", 2, hint)
    assert message is None or str(error) == message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 'a' + 1 }}", 'can only concatenate str (not "int") to str'),
        ("{{ range(10 ** 7) }}", "range too big"),
        ("{{ count() }}", "`int` object is not callable"),
        ("{{ 10 ** 100 }}", "a number of more than 100 digits"),
        ("{{ -(10 ** 100) }}", "a number of more than 100 digits"),
        ("{{ 1e308 * 10 }}", "a number of more than 100 digits"),
        ("{{ '\\ud83d' }}", "half of a surrogate pair is not a text"),
        ("{{ {'\\ud83d': 1} }}", "half of a surrogate pair is not a text"),
        ("{{ {(1, 2): 3} }}", "a list is not a key of a map"),
        ("{{ {[1]: 3} }}", "unhashable type: `list`"),
        ("{{ range }}", "a function is not a value"),
        ("{{ release.upper }}", "a function is not a value"),
        ("{{ [stages.index] }}", "a function is not a value"),
        ("{{ release.encode() }}", "an object of type `bytes` is not a value"),
        ("{{ namespace(a=1) }}", "an object of type `Namespace` is not a value"),
        ("{% for a in stages %}{{ loop }}{% endfor %}", "a function is not a value"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "it goes round in circles, or too deep"),
        ("{% extends count %}", "a file has a text as its name, not a number"),
    ],
)
def test_what_fails_while_rendering_is_said_with_its_line(source: str, message: str):
    error = wrong("first\n\n" + source)

    assert (error.code, str(error), error.line) == ("template-failed", message, 3)


def test_an_error_inside_of_a_macro_has_the_line_in_the_macro():
    assert wrong("{% macro m(a) %}\n{{ 1 / a }}\n{% endmacro %}\n\n{{ m(0) }}").line == 2


def test_short_memory_is_no_error_of_the_syntax():
    def read(name: str) -> str:
        raise MemoryError

    with pytest.raises(TemplateError, match="it needs more memory than a template may have") as caught:
        text("{% include 'a' %}", read=read)

    assert caught.value.code == "template-limit"


@pytest.mark.parametrize(
    "source",
    [
        "{{ item.__class__ }}",
        "{{ item['__class__'] }}",
        "{{ item | attr('__class__') }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ '{0.__class__}'.format(item) }}",
        "{{ '{a.__class__}'.format_map({'a': item}) }}",
        "{{ ('{0.__class__}' | attr('format'))(item) }}",
        "{{ [item] | map(attribute='__class__') | list }}",
        "{{ range.__globals__ }}",
        "{{ self.__init__ }}",
        "{{ loop.__init__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ (stages | map('upper')).gi_frame }}",
        "{{ stages.append(1) }}",
        "{{ stages.sort() }}",
        "{{ item.clear() }}",
        "{{ item.pop('path') }}",
        "{{ item.setdefault('a', 1) }}",
        "{% set ignored = item.popitem() %}",
    ],
)
def test_what_leads_inside_or_changes_something_is_refused(source: str):
    before = copy.deepcopy(NAMES)

    error = wrong(source)

    assert (error.code, error.line) == ("template-forbidden", 1)
    assert before == NAMES


@pytest.mark.parametrize(
    "source",
    [
        "{{ now.now() }}",
        "{{ now.astimezone() }}",
        "{{ now.today() }}",
        "{{ path.exists() }}",
        "{{ path.parent }}",
        "{{ '{0.year}'.format(now) }}",
    ],
)
def test_of_what_is_no_plain_data_nothing_can_be_read(source: str):
    with pytest.raises(TemplateError, match="may not be used") as caught:
        text(source, now=datetime(2026, 11, 23, tzinfo=UTC), path=Path("/"))

    assert caught.value.code == "template-forbidden"


def test_what_is_no_plain_data_cannot_be_a_value():
    with pytest.raises(TemplateError, match="an object of type `PurePosixPath` is not a value"):
        value("{{ path }}", path=PurePosixPath("a"))


def test_what_is_called_does_not_change_what_was_handed_in():
    names = copy.deepcopy(NAMES)

    found = Engine().value("{{ stages }}", names)
    found.append("more")

    assert names == NAMES


@pytest.mark.parametrize("source", ["{{ stages | random }}", "{{ lipsum() }}", "{{ stages | shuffle }}"])
def test_there_is_no_chance(source: str):
    assert wrong(source).code in {"template-syntax", "undefined-variable"}


def test_a_file_is_read_and_rendered_where_it_is_included():
    files = {"messages/sign.org": "-- {{ release }}\n"}

    assert text("* Hi\n{% include 'messages/sign.org' %}", read=files.__getitem__) == "* Hi\n-- 1.4.0\n"


def test_macros_are_imported_and_layouts_extended():
    files = {"m": "{% macro hi(a) %}hi {{ a }}{% endmacro %}", "base": "<{% block body %}{% endblock %}>"}
    source = "{% extends 'base' %}{% import 'm' as m %}{% block body %}{{ m.hi(release) }}{% endblock %}"

    assert text(source, read=files.__getitem__) == "<hi 1.4.0>"


def test_a_file_is_read_once():
    read = []

    engine = Engine(lambda name: read.append(name) or "x")

    assert [engine.text(source, {}) for source in ("{% include 'a' %}", "{% include 'a' %}!")] == ["x", "x!"]
    assert read == ["a"]


def test_an_error_in_an_included_file_has_its_name_and_line():
    undefined = wrong("\n\n{% include 'a.org' %}", **{"a.org": "one\n{{ relese }}"})
    syntax = wrong("{% include 'a.org' %}", **{"a.org": "one\n{{{title}}}"})

    assert (undefined.file, undefined.line, undefined.hint) == ("a.org", 2, "did you mean `release`?")
    assert (syntax.file, syntax.line, syntax.code) == ("a.org", 2, "template-syntax")
    assert syntax.hint.startswith("a macro of org-mode")


def test_a_file_that_includes_itself_is_an_error():
    assert str(wrong("{% include 'a' %}", a="{% include 'a' %}")) == "it goes round in circles, or too deep"


def test_without_a_reader_no_file_can_be_included():
    error = wrong("{% include 'a.org' %}")

    assert (error.code, str(error)) == ("template-forbidden", "the file `a.org` cannot be read from here")


@pytest.mark.parametrize("source", ["{% include 'a' %}", "{% include 'a' ignore missing %}", "{% extends 'a' %}"])
def test_what_the_reader_refuses_goes_through(source: str):
    refusal = InvalidInput([Diagnostic(code="missing", message="no such file")])

    def read(name: str) -> str:
        raise refusal

    with pytest.raises(InvalidInput) as caught:
        text(source, read=read)

    assert caught.value is refusal


def test_a_value_that_never_closes_is_said_to():
    with pytest.raises(TemplateError, match="unexpected end of template"):
        value("{{ release")


def test_nothing_of_a_template_runs_while_it_is_compiled():
    assert "aaaa" not in Engine()._sandbox.compile("{{ 'a' * 9 }}{{ ('a' * 9) | upper }}", raw=True)


def test_a_template_is_compiled_once():
    engine = Engine()
    compiled = []
    sandbox = engine._sandbox
    compile_ = sandbox.compile
    sandbox.compile = lambda *given, **more: compiled.append(given) or compile_(*given, **more)

    for number in range(10):
        assert engine.value("{{ n + 1 }}", {"n": number}) == number + 1
        assert engine.value("n {{ n }}", {"n": number}) == f"n {number}"
        assert engine.truth("n > 4", {"n": number}) is (number > 4)

    assert len(compiled) == 3


def test_an_error_comes_whole_from_another_process():
    error = pickle.loads(pickle.dumps(wrong("\n{% include 'a' %}", a="\n\n{{ relese }}")))

    assert (str(error), error.code, error.line) == ("`relese` is not defined", "undefined-variable", 3)
    assert (error.file, error.hint) == ("a", "did you mean `release`?")


def test_a_long_message_is_cut():
    assert len(str(wrong("{{ {}['" + "a" * 5000 + "']() }}"))) < 6000
    assert len(str(wrong("{% " + "a" * 5000 + " %}"))) <= 200


MARKS = "{{ }} {% %} {# #} { } ( ) [ ] ' \" | . , : - + ~ * / == \\ 1 0 1e999 \ud800 ª"
WORDS = "if for in endif endfor set macro call raw block include not is none loop release stages item x"
BRACES = st.lists(st.sampled_from([*MARKS.split(" "), *WORDS.split(" "), " ", "\n", "\r"]), max_size=25).map("".join)


@settings(deadline=None, max_examples=300)
@given(st.one_of(BRACES, BRACES.map(lambda inner: f"{{{{ {inner} }}}}"), st.text(max_size=40)))
@example("{{" + "(" * 500)
@example("{{ " + "(" * 150 + "1" + ")" * 150 + " }}")
@example("{{ " + "a." * 3000 + "b }}")
@example("{{ " + "1+" * 3000 + "1 }}")
@example("{{ " + "not " * 3000 + "1 }}")
@example("{{ " + "9" * 5000 + " }}")
@example("{% for i in [1] %}" * 30 + "{% endfor %}" * 30)
@example("{% if 1 %}" * 200 + "{% endif %}" * 200)
@example("{{ [1e999] }}")
@example("{{ '\x00' }}\x00")
@example("{% set a.b = 1 %}")
@example("{% block a %}{% endblock %}{% block a %}{% endblock %}")
@example("{% extends none %}")
@example("{% from 'a' import b %}")
@example("{% set x = namespace() %}{% set x.x = x %}{{ x.x.x | string }}")
@example("{% call range(1) %}{% endcall %}")
@example("{{ '%s' | format }}{{ '%' % 1 }}{{ '{'.format() }}")
def test_no_text_whatever_makes_anything_but_a_value_or_an_error_in_words(source: str):
    engine = Engine()

    for render in (engine.value, engine.text, engine.truth):
        found = said(render, source)
        assert pickle.loads(pickle.dumps(found)) == found


def said(render: Any, source: str) -> Any:
    """What a template gives, or the words and the code of its error."""
    try:
        return render(source, NAMES)
    except TemplateError as error:
        return str(error), error.code, error.hint


def test_the_same_comes_out_under_any_hash_seed():
    code = """if True:
        from cas.template import Engine
        names = {"map": {letter: ord(letter) for letter in "zebra"}, "list": list("zebra")}
        source = "{{ map }}{{ map|tojson }}{{ map.items() }}{{ list|unique }}{{ map|dictsort }}{{ list|groupby('0') }}"
        print(Engine().text(source, names))
        try:
            Engine().text("{{ nothing }}", names)
        except Exception as error:
            print(error, error.hint)
    """

    runs = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }

    assert len(runs) == 1


def test_jinja2_is_loaded_only_for_a_template():
    code = "import cas.template as t, sys; t.Engine().value('plain', {}); sys.exit('jinja2' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ x }}" * (MOST_MARKS + 1), "more than 5000 marks of templates"),
        ("{# x #}" * (MOST_MARKS + 1), "more than 5000 marks of templates"),
        ("{{ " + "1+" * MOST_CODE + "1 }}", "expressions of more than 20000 characters"),
        ("{{ " + "(" * MOST_CODE, "expressions of more than 20000 characters"),
    ],
    ids=["marks", "comments", "a sum", "one without an end"],
)
def test_what_takes_for_ever_to_compile_is_refused_before(source: str, message: str):
    error = wrong(source)

    assert (error.code, str(error)) == ("template-limit", message)


def test_what_stands_in_a_comment_is_no_code():
    assert text("{# " + "x" * MOST_CODE + " #}a") == "a"
