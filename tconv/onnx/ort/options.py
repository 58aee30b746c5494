"""Arguments of InferenceSession: checks, and the options that a partitioned model cannot honour."""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, TypedDict

import onnxruntime

from tconv.errors import ParameterError, UnsupportedError
from tconv.geometry.arguments import as_threads
from tconv.messages import show

__all__ = ["OrtKeywords", "Settings"]

_CPU = "CPUExecutionProvider"
_ON_CPUS = (_CPU, "AzureExecutionProvider")  # the latter runs only operators of its own, remotely
_OWN = ("sess_options", "providers", "provider_options", "threads", "force")
_STOP_SPINNING = "session.force_spinning_stop"
# Options that subgraphs or tconv would not honour: attributes and config entries of SessionOptions
# with the values that request them; None means any value but "".
_NEED_WHOLE_MODEL: Mapping[str, tuple[Any, ...] | None] = {
    "enable_profiling": (True,),
    "optimized_model_filepath": None,
    "execution_mode": (onnxruntime.ExecutionMode.ORT_PARALLEL,),
    "use_per_session_threads": (False,),
    "session.load_model_format": ("ORT",),
    "session.set_denormal_as_zero": ("1",),
    "session.strict_shape_type_inference": ("1",),
    "session.intra_op_thread_affinities": None,
    "session.collect_node_memory_stats_to_file": None,
    "ep.context_enable": ("1",),
}


class OrtKeywords(TypedDict, total=False):
    """Further keywords of InferenceSession; their defaults depend on providers and environment."""

    enable_fallback: int | str
    read_config_from_model: int | str
    disabled_optimizers: Collection[str] | None


_OTHERS = tuple(OrtKeywords.__annotations__)


@dataclass(frozen=True, eq=False)
class Settings:
    """Arguments of a session, which `of` checks.

    `for_subgraphs` are the `sess_options` with threads that do not spin after a run. `providers`
    are pairs of a name and its options, `others` further keywords of ONNX Runtime's constructor.
    """

    threads: int | None = None
    sess_options: Any = None
    for_subgraphs: Any = None
    providers: tuple[tuple[str, Mapping[Any, Any]], ...] = ()
    others: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        threads: int | None = None,
        sess_options: Any = None,
        providers: Any = None,
        provider_options: Any = None,
        others: Mapping[str, Any] | None = None,
    ) -> "Settings":
        """Check the arguments that a caller passed to the constructor.

        Raises
        ------
        ParameterError : ONNX Runtime does not accept an argument, or two contradict each other
        """
        others, threads = _as_others(others or {}), as_threads(threads)
        if sess_options is not None:
            if not isinstance(sess_options, onnxruntime.SessionOptions):
                raise ParameterError(
                    f"sess_options={show(sess_options)} must be onnxruntime.SessionOptions; pass "
                    "such an object, or None."
                )
            threads = _agreed_threads(threads, sess_options.intra_op_num_threads)
        pairs = _as_providers(providers, provider_options)
        return cls(threads, sess_options, providers=pairs, others=others)

    @property
    def why_whole(self) -> str:
        """Why ONNX Runtime runs every model as a whole, "" if it may be partitioned."""
        for name, _ in self.providers:
            if name not in _ON_CPUS:
                return name
        for name, values in _NEED_WHOLE_MODEL.items() if self.sess_options is not None else ():
            found = _said(self.sess_options, name)
            if (found and values is None) or (values and found in values):
                return f"sess_options: {name}={getattr(found, 'name', found)}"
        return "sess_options: providers" if self._has_own_providers else ""

    @property
    def names(self) -> list[str]:
        """Providers of a partitioned model's session."""
        return [*dict.fromkeys((*(name for name, _ in self.providers), _CPU))]

    def with_providers(self, providers: Any, provider_options: Any) -> "Settings":
        """Return the same settings with other providers.

        Raises
        ------
        ParameterError : ONNX Runtime does not accept them
        """
        return replace(self, providers=_as_providers(providers, provider_options))

    def with_options(self, options: Any, for_subgraphs: Any) -> "Settings":
        """Return the same settings with two private copies of the options."""
        if _said(for_subgraphs, _STOP_SPINNING) != "1":
            for_subgraphs.add_session_config_entry(_STOP_SPINNING, "1")
        return replace(self, sess_options=options, for_subgraphs=for_subgraphs)

    def falling_back(self, falls_back: bool) -> "Settings":
        """Return the same settings with `enable_fallback` set or not."""
        return replace(self, others={**self.others, "enable_fallback": int(falls_back)})

    def options(self, *, spin: bool) -> Any:
        """Return the SessionOptions to load with.

        Threads spin while they wait for work, which is fast, and for a while after a run, which
        slows the computation after it. With ``spin=False`` they stop when the run ends.
        """
        if self.sess_options is not None:
            return self.sess_options if spin else self.for_subgraphs
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or 0
        options.log_severity_level = 4  # errors are raised, so they need not be printed too
        if not spin:  # Tried no spinning at all: a quarter slower (DBNet, 2 cores of a Xeon).
            options.add_session_config_entry(_STOP_SPINNING, "1")
        return options

    @property
    def keywords(self) -> dict[str, Any]:
        """Arguments of ONNX Runtime's constructor other than model and options."""
        pairs = [(name, dict(options)) for name, options in self.providers] or [(_CPU, {})]
        # The fallback prints to standard output, and on CPUs it repeats the same attempt.
        falls_back = any(name not in _ON_CPUS for name, _ in pairs)
        return {
            "providers": None if self._has_own_providers else pairs,
            "enable_fallback": int(falls_back),
            **self.others,
        }

    @property
    def _has_own_providers(self) -> bool:
        """Whether only `sess_options` choose the providers."""
        has_providers = getattr(self.sess_options, "has_providers", bool)  # not in 1.20
        return not self.providers and has_providers()

    def __deepcopy__(self, memo: Any) -> "Settings":
        """Return itself: it is immutable, and ONNX Runtime's options cannot be copied."""
        return self

    def __reduce__(self) -> Any:
        """Pickle without sess_options, which cannot be pickled."""
        if self.sess_options is not None:
            raise UnsupportedError(
                "a session made with sess_options cannot be pickled, as "
                "onnxruntime.SessionOptions cannot; make the session anew where it is needed, or "
                "pass threads= in place of sess_options."
            )
        return Settings, (self.threads, None, None, self.providers, self.others)


def _as_others(others: Mapping[str, Any]) -> dict[str, Any]:
    """Check that ONNX Runtime knows the keywords and accepts their values."""
    for name, value in others.items():
        if name not in _OTHERS:  # ONNX Runtime would ignore it
            near = get_close_matches(name, (*_OWN, *_OTHERS), 1)
            what = f"did you mean {near[0]!r}?" if near else f"known are {_listed(_OWN)}."
            raise ParameterError(f"{name}={show(value)} must be an argument of Session; {what}")
        if name == "disabled_optimizers":
            is_sound = value is None or isinstance(value, list | tuple | set | frozenset)
            is_sound = is_sound and all(isinstance(each, str) for each in value or ())
            rule = "be a list of names of optimizers"
        else:
            is_sound = isinstance(value, int | str) and value in (0, 1, "0", "1")
            rule = "be 0 or 1"
        if not is_sound:
            raise ParameterError(f"{name}={show(value)} must {rule}; pass that, or leave it out.")
    return dict(others)


def _agreed_threads(threads: int | None, of_options: int) -> int | None:
    """Return the number of threads in the options, None if that is 0, one for each core."""
    if threads not in (None, of_options):
        raise ParameterError(
            f"threads={threads} must be sess_options.intra_op_num_threads={of_options}; pass "
            "sess_options alone, and in it the number that you mean."
        )
    return as_threads(of_options) if of_options > 0 else None


def _as_providers(providers: Any, options: Any) -> tuple[tuple[str, Mapping[Any, Any]], ...]:
    """Return names with options, without providers that this build of ONNX Runtime lacks."""
    if providers is None or (isinstance(providers, list | tuple) and not providers):
        return ()
    if not isinstance(providers, Sequence) or isinstance(providers, str | bytes):
        raise ParameterError(
            f"providers={show(providers)} must be a list of names; pass [{_CPU!r}], for example."
        )
    pairs = [_pair(each) for each in providers]
    if options is not None:
        if not isinstance(options, Sequence) or not all(isinstance(o, dict) for o in options):
            raise ParameterError(
                f"provider_options={show(options)} must be a list of dicts; pass one for each of "
                "providers."
            )
        if len(options) != len(pairs) or not all(isinstance(each, str) for each in providers):
            raise ParameterError(
                f"provider_options={show(options)} must have one dict for each name in "
                f"providers={show(providers)}; pass as many, or pairs in providers alone."
            )
        pairs = [(name, each) for (name, _), each in zip(pairs, options, strict=True)]
    available = onnxruntime.get_available_providers()
    first: dict[str, Mapping[Any, Any]] = {}
    for name, each in pairs:
        if name in available or name not in onnxruntime.get_all_providers():
            first.setdefault(name, each)
        else:
            warnings.warn(
                f"providers has {name!r}, which this onnxruntime lacks; it has "
                f"{_listed(available)}.",
                stacklevel=4,
            )
    return tuple(first.items()) or ((_CPU, {}),)


def _pair(provider: Any) -> tuple[str, Mapping[Any, Any]]:
    if isinstance(provider, str):
        return provider, {}
    match provider:
        case (str(name), dict(options)) if isinstance(provider, tuple):
            return name, options
    raise ParameterError(
        f"providers has {show(provider)}, must have names or pairs of a name and a dict; pass "
        f"{_CPU!r}, for example."
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _said(options: Any, name: str) -> Any:
    """Return an attribute or a config entry of SessionOptions, "" if the entry is not set."""
    if "." not in name:
        return getattr(options, name, None)  # some are newer than ONNX Runtime 1.20
    try:
        return options.get_session_config_entry(name)
    except RuntimeError:
        return ""
