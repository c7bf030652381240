#!/usr/bin/env python3
"""The packages `openai` and `anthropic` against a running `halo serve`: what their users call, what they read,
and the errors that they raise; answers by JSON schemas beside the package `jsonschema`; `schemathesis`, which
makes requests of /openapi.json; and `promtool`, which reads /metrics.

    tests/clients/environment tests/clients/clients.py build/halo demo/teacher
"""
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import anthropic
import jsonschema
import openai

from schemas import random_schema

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}},
}
USER = [{"role": "user", "content": "The old man"}]


@contextlib.contextmanager
def serving(halo, teacher, *options):
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "model"
        shutil.copytree(teacher, model)
        (model / "chat_template.jinja").write_text(TEMPLATE)
        keys = pathlib.Path(folder) / "keys"
        keys.write_text("secret\n")
        keys.chmod(0o600)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        server = subprocess.Popen(
            [halo, "serve", model, "--port", str(port), "--api-key-file", keys, "--strict-model", "--alias", "m",
             "--memory", "0.2", *options]
        )
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(url + "/health/live")
                    break
                time.sleep(0.1)
            yield url
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0, "the server did not end well"


def raises(kind, call, **expected):
    try:
        call()
    except kind as error:
        for name, value in expected.items():
            assert getattr(error, name) == value, (name, getattr(error, name), value)
        return
    raise AssertionError(f"no {kind.__name__}")


def check_lists_and_errors(client, url):
    assert [m.id for m in client.models.list()] == ["m"]
    assert client.models.retrieve("m").id == "m"
    ask = client.chat.completions.create
    raises(openai.NotFoundError, lambda: ask(model="x", messages=USER), code="model_not_found", param="model")
    raises(
        openai.BadRequestError,
        lambda: ask(model="m", messages=[{"role": "robot", "content": ""}]),
        param="messages.0.role",
        type="invalid_request_error",
    )
    raises(
        openai.BadRequestError,
        lambda: ask(model="m", messages=USER, max_tokens=100_000, stream=True),
        code="context_length_exceeded",
    )
    raises(openai.BadRequestError, lambda: ask(model="m", messages=USER, n=17), param="n")
    wrong = openai.OpenAI(base_url=url + "/v1", api_key="wrong", max_retries=0)
    raises(openai.AuthenticationError, lambda: wrong.models.list().data)


def check_completions(client):
    ask = client.completions.create
    plain = dict(model="m", prompt="It was", max_tokens=12, temperature=0)
    whole = ask(**plain)
    assert whole.object == "text_completion" and whole.usage.completion_tokens <= 12
    text = "".join(e.choices[0].text for e in ask(**plain, stream=True))
    assert text == whole.choices[0].text, (text, whole.choices[0].text)
    scored = ask(**plain | dict(max_tokens=1), echo=True, logprobs=1).choices[0].logprobs
    count = scored and len(scored.tokens)
    assert count == len(scored.token_logprobs) == len(scored.top_logprobs) == len(scored.text_offset)
    assert scored.token_logprobs[0] is None
    assert scored.token_logprobs[-1] == max(scored.top_logprobs[-1].values())
    many = ask(model="m", prompt=["It was", "The"], max_tokens=4, n=2, seed=7)
    assert [c.index for c in many.choices] == [0, 1, 2, 3]
    assert ask(model="m", prompt=["It was", "The"], max_tokens=4, n=2, seed=7).choices == many.choices
    again = ask(**plain)
    assert again.usage.prompt_tokens_details.cached_tokens >= 0


def check_chat(client):
    ask = client.chat.completions.create
    plain = dict(model="m", messages=USER, max_tokens=12, temperature=0)
    whole = ask(**plain, logprobs=True, top_logprobs=2)
    message = whole.choices[0].message
    assert message.role == "assistant" and message.content is not None and not message.tool_calls
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    assert whole.choices[0].finish_reason in ("stop", "length")
    events = list(ask(**plain, stream=True, stream_options={"include_usage": True}))
    assert events[0].choices[0].delta.role == "assistant"
    text = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
    assert text == message.content, (text, message.content)
    assert events[-1].choices == [] and events[-1].usage.total_tokens == whole.usage.total_tokens
    assert all(e.choices for e in ask(**plain, stream=True))  # no usage unless it was asked for
    assert ask(**plain, tools=[TOOL]).choices[0].message.role == "assistant"


def check_schemas(client):
    """Whatever the model, the temperature and the schema: what ends is JSON and valid."""
    ask = client.chat.completions.create
    draw = random.Random(3)
    ended = 0
    for seed in range(24):
        schema = random_schema(draw, 3)
        form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
        whole = ask(model="m", messages=USER, max_tokens=300, temperature=1.5, seed=seed, n=2, response_format=form)
        for choice in whole.choices:
            if choice.finish_reason == "stop":
                ended += 1
                jsonschema.Draft202012Validator(schema).validate(json.loads(choice.message.content))
    assert ended >= 24, ended
    anything = ask(model="m", messages=USER, max_tokens=60, temperature=1, response_format={"type": "json_object"})
    assert anything.choices[0].message.content.startswith("{")
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "contains": {}}}}
    raises(
        openai.BadRequestError,
        lambda: ask(model="m", messages=USER, response_format=wrong),
        param="response_format.json_schema.schema.contains",
        code="unsupported_schema",
    )


def check_calls(client):
    ask = client.chat.completions.create
    parameters = {
        "type": "object",
        "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}, "on": {"type": "boolean"}},
        "required": ["x", "on"],
        "additionalProperties": False,
    }
    tools = [{"type": "function", "function": {"name": n, "strict": True, "parameters": parameters}} for n in "fg"]
    for choice in ("required", {"type": "function", "function": {"name": "g"}}):
        for seed in range(4):
            plain = dict(model="m", messages=USER, max_tokens=300, temperature=1.5, seed=seed, tools=tools)
            plain |= dict(tool_choice=choice, parallel_tool_calls=False)
            whole = ask(**plain).choices[0]
            assert whole.finish_reason == "tool_calls" and len(whole.message.tool_calls) == 1
            function = whole.message.tool_calls[0].function
            assert function.name == "g" or choice == "required"
            jsonschema.Draft202012Validator(parameters).validate(json.loads(function.arguments))
            joined = ""
            for event in ask(**plain, stream=True):
                for call in event.choices[0].delta.tool_calls or []:
                    joined += call.function.arguments or ""
            assert json.loads(joined) == json.loads(function.arguments), (joined, function.arguments)
    response = client.responses.create(
        model="m", input="a", tools=[{"type": "function", "name": "f", "parameters": parameters}],
        tool_choice="required", parallel_tool_calls=False,
    )
    assert response.output[0].type == "function_call" and response.output[0].name == "f"
    jsonschema.Draft202012Validator(parameters).validate(json.loads(response.output[0].arguments))


def check_description(url):
    """Requests made of /openapi.json, right and wrong ones: no 5xx, and nothing that it does not describe."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-S", "-m", "schemathesis.cli", "--no-color", "run", url + "/openapi.json", "--checks", checks,
             "--header", "Authorization:Bearer secret", "--max-examples", "25", "--max-time", "60", "--seed", "1",
             "--phases", "examples,coverage,fuzzing", "--no-shrink", "--request-timeout", "20", "--workers", "2"],
            check=True, cwd=folder, env=os.environ | {"HYPOTHESIS_STORAGE_DIRECTORY": folder},
        )


def check_metrics(url):
    """What Prometheus' own tool says of them: nothing."""
    request = urllib.request.Request(url + "/metrics", headers={"Authorization": "Bearer secret"})
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
    subprocess.run([pathlib.Path(__file__).with_name("promtool"), "check", "metrics"], input=text, check=True)


def check_responses(client):
    plain = dict(model="m", input="The old man", max_output_tokens=12, temperature=0)
    whole = client.responses.create(**plain)
    assert whole.status in ("completed", "incomplete") and whole.output_text is not None
    events = list(client.responses.create(**plain, stream=True))
    assert events[0].type == "response.created" and events[-1].response.output_text == whole.output_text
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    raises(
        openai.BadRequestError,
        lambda: client.responses.create(model="m", input="a", previous_response_id="resp_1"),
        param="previous_response_id",
    )


def check_messages(url):
    client = anthropic.Anthropic(base_url=url, api_key="secret", max_retries=0)
    plain = dict(model="m", messages=USER, max_tokens=12)
    whole = client.messages.create(**plain, extra_body={"temperature": 0})
    assert whole.type == "message" and whole.stop_reason in ("end_turn", "max_tokens")
    with client.messages.stream(**plain, extra_body={"temperature": 0}) as stream:
        text = "".join(stream.text_stream)
    assert text == "".join(block.text for block in whole.content)
    assert client.messages.count_tokens(model="m", messages=USER).input_tokens > 0
    raises(anthropic.BadRequestError, lambda: client.messages.create(**plain | dict(messages=[])))


def check_cancellation(client):
    """Many that go away in the middle leave the server free, and a neighbour's text alone."""
    ask = client.completions.create
    plain = dict(model="m", prompt="It was", max_tokens=16, temperature=0)
    before = ask(**plain).choices
    results = []
    neighbour = threading.Thread(target=lambda: results.append(ask(**plain).choices))
    neighbour.start()
    for _ in range(20):
        stream = ask(model="m", prompt="The", max_tokens=900, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
    neighbour.join()
    assert results == [before]


def main():
    halo, teacher = sys.argv[1:]
    with serving(halo, teacher) as url:
        client = openai.OpenAI(base_url=url + "/v1", api_key="secret", max_retries=0)
        check_lists_and_errors(client, url)
        check_completions(client)
        check_chat(client)
        check_schemas(client)
        check_calls(client)
        check_responses(client)
        check_messages(url)
        check_cancellation(client)
        check_metrics(url)
    with serving(halo, teacher, "--max-context", "128", "--slots") as url:
        check_description(url)
    print("clients: openai", openai.__version__, "and anthropic", anthropic.__version__, "are content")


if __name__ == "__main__":
    main()
