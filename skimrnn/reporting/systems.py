"""The systems: of which kind they are, what they are called, and what the paper prints for them."""

from collections import Counter

from skimrnn.config import (
    Config,
    LSTMAttConfig,
    LSTMConfig,
    ModelConfig,
    ReaderConfig,
    SkimLSTMAttConfig,
    SkimLSTMConfig,
    SkimmingConfig,
    SkimReaderConfig,
)
from skimrnn.counts import count_of
from skimrnn.published import published_value, published_values

CITED = {"lstm_jump": "LSTM-Jump", "vcrnn": "VCRNN", "sota": "SOTA"}
"""Systems that the paper cites and that are not run here, with their titles."""


def skims(model: ModelConfig) -> bool:
    """Whether a model has two cells, so that it skims (d' > 0) or skips (d' = 0)."""
    return isinstance(model, SkimmingConfig)


def is_skim_lstm(model: ModelConfig) -> bool:
    """Whether a model is a classifier that skims (d' > 0)."""
    return isinstance(model, SkimLSTMConfig) and model.small_size > 0


def is_lstm(model: ModelConfig) -> bool:
    """Whether a model is the standard LSTM as a classifier."""
    return isinstance(model, LSTMConfig)


def system_titles(config: Config) -> dict[str, str]:
    """The title of each model of the config, such as `Standard` and `Skim 5/.01` (d'/gamma).

    The title says d where the config has more than one, and the model's name where others would be called the same.
    """
    titles = {name: _title(model) + of_size(config, model.hidden_size) for name, model in config.models.items()}
    count = Counter(titles.values())
    return {name: title if count[title] == 1 else f"{title} ({name})" for name, title in titles.items()}


def of_size(config: Config, hidden_size: int) -> str:
    """`, d = 200` where the config has more than one d."""
    return f", d = {hidden_size}" if len({model.hidden_size for model in config.models.values()}) > 1 else ""


def _title(model: ModelConfig) -> str:
    if isinstance(model, ReaderConfig):
        title, layers = "Sk-" * isinstance(model, SkimReaderConfig), ""
        if isinstance(model, LSTMAttConfig | SkimLSTMAttConfig):
            title += "LSTM+Att"
            layers = "" if model.num_layers == 2 else f", {count_of(model.num_layers, 'layer')}"
        else:
            title += "BiDAF"
        return f"{title}{_sizes(model)}{layers}"
    return f"Skim{_sizes(model)}" if isinstance(model, SkimLSTMConfig) else "Standard"


def _sizes(model: ModelConfig) -> str:
    """d'/gamma, after a space; nothing for a model that reads every token."""
    return f" {sizes_text(model.small_size, model.gamma)}" if isinstance(model, SkimmingConfig) else ""


def sizes_text(small_size: int | None, gamma: float) -> str:
    """d'/gamma as the paper prints it, such as `5/.01`."""
    return f"{small_size}/{gamma:g}".replace("/0.", "/.")


def paper_value(dataset: str, model: ModelConfig, metric: str) -> float | None:
    """What the paper prints for a model with these settings, or None."""
    if isinstance(model, SkimLSTMConfig):
        return published_value(dataset, "skim_lstm", metric, model.hidden_size, model.small_size, model.gamma)
    return published_value(dataset, "lstm", metric, model.hidden_size)


def in_paper(dataset: str) -> bool:
    """Whether the paper prints any result for a dataset; for CBT it gives the statistics of the data alone."""
    return any(value.dataset == dataset and value.table != "datasets" for value in published_values())
