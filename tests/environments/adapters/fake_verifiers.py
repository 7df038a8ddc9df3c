"""As much of verifiers before 0.4 as the adapter uses, with one environment whose rollouts are scripted."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from types import ModuleType, SimpleNamespace
from typing import Any


class Client(ABC):
    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def setup_client(self, config: Any) -> Any: ...

    @abstractmethod
    async def get_response(self, prompt: Any, model: str, sampling_args: Any, tools: Any = None) -> Any: ...


class Record(SimpleNamespace):
    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)


TOOL = Record(name="double", description="Doubles a number.", parameters={"type": "object"})


class Scripted:
    """Row n asks for the number n % 3 and answers with higher and lower; ``fault`` strikes in rows of even number."""

    requires_group_rollouts = False
    max_turns = -1

    def __init__(self, fault: str = "", evaluated: bool = False, rows: int = 12, tools: bool = False) -> None:
        self.fault, self.evaluated, self.rows = fault, evaluated, rows
        self.offered = [TOOL] if tools else None
        self.cleaned = 0

    def data(self, numbers: range) -> list[dict[str, Any]]:
        system = {"role": "system", "content": "Be brief."}
        return [
            {"prompt": [system, {"role": "user", "content": f"Guess {n}."}], "answer": str(n % 3), "example_id": n}
            for n in numbers
        ]

    def build_dataset(self) -> Any:
        return self.data(range(self.rows)) if self.rows else None

    def build_eval_dataset(self) -> Any:
        return self.data(range(max(self.rows - 2, 0), self.rows + 2)) if self.evaluated else None

    async def run_rollout(self, row: dict[str, Any], client: Client, model: str, sampling_args: Any) -> dict[str, Any]:
        messages, struck = list(row["prompt"]), self.fault if row["example_id"] % 2 == 0 else ""
        reward, stop = 0.0, "max_turns_reached"
        try:
            if struck == "at once":
                raise RuntimeError("no start")
            for _ in range(self.max_turns):
                response = await client.get_response(
                    prompt=messages, model=model, sampling_args=sampling_args, tools=self.offered
                )
                await asyncio.sleep(0)
                if struck == "raise":
                    raise KeyError("broken")
                if struck == "exit":
                    raise SystemExit(3)
                if struck in ("SandboxError", "ToolError"):
                    return {"reward": 1.0, "error": {"error": struck, "message": "gone"}, "stop_condition": "has_error"}
                if struck == "late":
                    return {"reward": 1.0, "error": None, "stop_condition": "timeout_reached"}
                messages = [*messages, {"role": "assistant", "content": response.message.content}]
                if response.message.tool_calls:
                    (call, *_) = response.message.tool_calls
                    doubled = 2 * json.loads(call.arguments).get("number", 0)
                    messages.append({"role": "tool", "content": str(doubled), "tool_call_id": call.id})
                elif response.message.content == row["answer"]:
                    reward, stop = 1.0, "solved"
                    break
                else:
                    picture = [{"type": "image_url", "image_url": "x"}]
                    messages.append({"role": "user", "content": picture if struck == "picture" else "Wrong."})
        finally:
            self.cleaned += 1
        return {"reward": reward, "error": None, "stop_condition": stop}


def fake_verifiers(made: list[Scripted]) -> dict[str, ModuleType]:
    """The modules ``verifiers`` and ``verifiers.types``; environments that were loaded are added to ``made``."""

    def load_environment(env_id: str, **kwargs: Any) -> Scripted:
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as the real one does
        made.append(Scripted(**kwargs))
        return made[-1]

    package, types = ModuleType("verifiers"), ModuleType("verifiers.types")
    vars(package).update(load_environment=load_environment, Client=Client, types=types, __version__="0.3.fake")
    vars(types).update(Response=Record, ResponseMessage=Record, ToolCall=Record)
    return {"verifiers": package, "verifiers.types": types}


RIDDLES = '''
import verifiers as vf
from datasets import Dataset


def right(completion, answer):
    return float(completion[-1]["content"] == answer)


def double(number: int) -> int:
    """Doubles a number.

    Args:
        number: what to double.
    """
    return 2 * number


class Guessing(vf.MultiTurnEnv):
    @vf.stop
    async def found(self, state):
        return bool(state["trajectory"]) and state["trajectory"][-1]["completion"][-1]["content"] == state["answer"]

    async def env_response(self, messages, state, **kwargs):
        if messages[-1]["content"] == "crash":
            raise RuntimeError("crashed")
        if messages[-1]["content"] == "gone":
            raise vf.SandboxError("no sandbox")
        return [{"role": "user", "content": "Wrong."}]


def load_environment(kind="single"):
    rows = [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(20)]
    settings = {"dataset": Dataset.from_list(rows), "rubric": vf.Rubric(funcs=[right]), "system_prompt": "Be brief."}
    if kind == "multi":
        return Guessing(**settings)
    if kind == "tool":
        return vf.ToolEnv(tools=[double], **settings)
    return vf.SingleTurnEnv(**settings)
'''
