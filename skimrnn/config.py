"""The configuration of a whole pipeline: one YAML file a scale, checked here, closed (an unknown key is an error).

`workflow/schemas/config.schema.json` is generated from these models (`python -m skimrnn schema`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationError, field_validator, model_validator

from skimrnn.data.registry import DATASETS, Task
from skimrnn.errors import UserError
from skimrnn.files import Closed, message_of, read_json, read_text

LARGEST_SEED = 2**32 - 1
"""What every library here takes."""


class _Settings(Closed):
    @model_validator(mode="before")
    @classmethod
    def _no_value_is_yes_or_no(cls, values: Any) -> Any:
        """Pydantic would take true and false, in YAML yes and no, too, for the numbers 1 and 0."""
        for key, value in values.items() if isinstance(values, dict) else ():
            if any(isinstance(part, bool) for part in (value if isinstance(value, list | tuple) else [value])):
                raise ValueError(f"{key} is true or false (in YAML yes or no): give a number or a name")
        return values

    @model_validator(mode="before")
    @classmethod
    def _no_value_holds_nul(cls, values: Any) -> Any:
        """No path may."""
        for key, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, str) and "\0" in value:
                raise ValueError(f"{key} holds the character NUL: take it out")
        return values


class DataConfig(_Settings):
    """Where the raw texts come from."""

    source: Literal["hub", "mirror", "embedded"] = "hub"
    mirror: Path | None = Field(None, description="folder laid out like the hub: <org>/<name>/<split>.parquet")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="decides which training rows become the validation split")

    @model_validator(mode="after")
    def _mirror_is_named(self) -> "DataConfig":
        if self.source == "mirror" and self.mirror is None:
            raise ValueError("source is mirror, so mirror must name its folder")
        if self.source != "mirror" and self.mirror is not None:
            raise ValueError(f"mirror names a folder, but source is {self.source}: give source: mirror, or no mirror")
        return self


class VectorsConfig(_Settings):
    """Where the word vectors come from, and how they are trained when they come from the corpus."""

    source: Literal["glove", "file", "corpus", "file+corpus", "random"] = "glove"
    dimension: int = Field(100, gt=0)
    path: Path | None = Field(None, description="GloVe-format file (.txt, .gz, .xz, .npz), for source file")
    file_dimension: int | None = Field(
        None, gt=0, description="for source file+corpus: how many dimensions are the file's; word2vec's are the others"
    )
    window: int = Field(8, gt=0, description="word2vec context window, for source corpus")
    epochs: int = Field(4, gt=0, description="word2vec passes over the texts, for source corpus")
    min_count: int = Field(3, gt=0, description="rarest word that gets a vector, for source corpus")
    seed: int = Field(0, ge=0, le=LARGEST_SEED)

    @model_validator(mode="after")
    def _file_is_named(self) -> "VectorsConfig":
        if "file" in self.source and self.path is None:
            raise ValueError(f"source is {self.source}, so path must name it")
        if "file" not in self.source and self.path is not None:
            raise ValueError(f"path names a file, but source is {self.source}: give source: file, or no path")
        return self

    @model_validator(mode="after")
    def _file_leaves_dimensions(self) -> "VectorsConfig":
        if self.source == "file+corpus":
            if not 0 < (self.file_dimension or 0) < self.dimension:
                raise ValueError(f"source is file+corpus, so file_dimension must be from 1 to {self.dimension - 1}")
        elif self.file_dimension is not None:
            raise ValueError(f"file_dimension is for source file+corpus, and source is {self.source}: remove it")
        return self

    @property
    def file(self) -> Path:
        """The file of the sources that have one."""
        assert self.path is not None
        return self.path

    def settings(self) -> dict[str, str | int]:
        """What decides these vectors besides the texts and the dimension, for the record; no folder of this machine."""
        settings: dict[str, str | int] = {}
        if self.source == "glove":
            settings |= {"release": "glove.6B"}
        if "file" in self.source:
            settings |= {"file": self.file.name}
        if self.file_dimension is not None:
            settings |= {"file_dimension": self.file_dimension}
        if "corpus" in self.source:
            settings |= {"window": self.window, "epochs": self.epochs, "min_count": self.min_count}
        return settings | {"seed": self.seed}  # Of words without a vector, too.


def _distinct(seeds: list[int]) -> list[int]:
    if min(seeds) < 0 or max(seeds) > LARGEST_SEED or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be distinct, not negative and at most {LARGEST_SEED}")
    return seeds


Seeds = Annotated[list[int], Field(min_length=1), AfterValidator(_distinct)]


def _require_not_larger(small_size: int, hidden_size: int) -> None:
    if small_size > hidden_size:
        raise ValueError(f"small_size {small_size} is larger than hidden_size {hidden_size}")


class LSTMConfig(_Settings):
    """The standard LSTM classifier."""

    task: ClassVar[Task] = "classification"

    architecture: Literal["lstm"]
    hidden_size: int = Field(gt=0, description="d")


class SkimLSTMConfig(_Settings):
    """The Skim-LSTM classifier. `small_size` 0 means skipping."""

    task: ClassVar[Task] = "classification"

    architecture: Literal["skim_lstm"]
    hidden_size: int = Field(gt=0, description="d")
    small_size: int = Field(ge=0, description="d'")
    gamma: float = Field(ge=0, allow_inf_nan=False, description="weight of the skim loss")

    @model_validator(mode="after")
    def _small_is_not_larger(self) -> Self:
        _require_not_larger(self.small_size, self.hidden_size)
        return self


class FirstSteps(_Settings):
    """The steps of another model that a model goes on from."""

    model: str = Field(description="name in the config")
    step: int = Field(gt=0)


class _ReaderConfig(_Settings):
    """What all readers have."""

    task: ClassVar[Task] = "question_answering"

    hidden_size: int = Field(gt=0, description="d")
    dropout: float = Field(0.2, ge=0, lt=1)
    ema_decay: float = Field(0.999, ge=0, lt=1, description="of the moving average of the weights that is evaluated")


class LSTMAttConfig(_ReaderConfig):
    """The reader LSTM+Att: bidirectional LSTM layers over question-aware words."""

    architecture: Literal["lstm_att"]
    num_layers: int = Field(2, gt=0)


class BiDAFConfig(_ReaderConfig):
    """The reader BiDAF."""

    architecture: Literal["bidaf"]


class _SkimReaderConfig(_ReaderConfig):
    """What a reader with skimming layers has besides what its standard counterpart has."""

    small_size: int = Field(ge=0, description="d'")
    gamma: float = Field(ge=0, allow_inf_nan=False, description="weight of the skim loss")
    init_from: FirstSteps | None = Field(None, description="the standard model that it is fine-tuned from")

    @model_validator(mode="after")
    def _small_is_not_larger(self) -> Self:
        _require_not_larger(self.small_size, self.hidden_size)
        return self


class SkimLSTMAttConfig(_SkimReaderConfig):
    """The reader Sk-LSTM+Att: LSTM+Att with Skim-LSTM layers."""

    architecture: Literal["skim_lstm_att"]
    num_layers: int = Field(2, gt=0)

    @property
    def standard(self) -> LSTMAttConfig:
        """The same reader with standard layers."""
        shared = self.model_dump(include={"hidden_size", "num_layers", "dropout", "ema_decay"})
        return LSTMAttConfig(architecture="lstm_att", **shared)


class SkimBiDAFConfig(_SkimReaderConfig):
    """The reader Sk-BiDAF: BiDAF with Skim-LSTM layers."""

    architecture: Literal["skim_bidaf"]

    @property
    def standard(self) -> BiDAFConfig:
        """The same reader with standard layers."""
        shared = self.model_dump(include={"hidden_size", "dropout", "ema_decay"})
        return BiDAFConfig(architecture="bidaf", **shared)


SkimReaderConfig = SkimLSTMAttConfig | SkimBiDAFConfig
ReaderConfig = LSTMAttConfig | BiDAFConfig | SkimReaderConfig
SkimmingConfig = SkimLSTMConfig | SkimReaderConfig
ModelConfig = Annotated[LSTMConfig | SkimLSTMConfig | ReaderConfig, Field(discriminator="architecture")]


class TrainingConfig(_Settings):
    """Adam with early stopping on the validation score: accuracy or, for question answering, F1."""

    learning_rate: float = Field(1e-4, gt=0, allow_inf_nan=False)
    clip_norm: float = Field(5.0, gt=0, allow_inf_nan=False, description="largest norm of the whole gradient")
    patience: int = Field(3000, gt=0, description="steps without a better validation score before stopping")
    max_steps: int = Field(100_000, gt=0)
    validate_every: int = Field(200, gt=0, description="steps between validations, each of which saves a checkpoint")
    temperature_decay: float = Field(1e-4, ge=0, allow_inf_nan=False, description="r in tau = max(floor, exp(-r step))")
    temperature_floor: float = Field(0.5, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _validates(self) -> Self:
        if self.patience < min(self.validate_every, self.max_steps):
            raise ValueError("a patience below validate_every ends training before any validation: raise it")
        return self


class SpeedConfig(_Settings):
    """How the speed-up of the trained models is measured."""

    tokens: int = Field(8_000, gt=0, description="size of the sample of test texts that classifiers read")
    context_tokens: int = Field(50_000, gt=0, description="size of the sample of contexts that readers read")
    rounds: int = Field(9, ge=5, description="how often each model reads them")


class DatasetConfig(_Settings):
    """How one dataset is trained on."""

    batch_size: int = Field(gt=0)
    models: list[str] | None = Field(None, min_length=1, description="instead of all models that answer what it asks")
    seeds: Seeds | None = Field(None, description="instead of the scale's seeds")
    training: TrainingConfig | None = Field(None, description="instead of the scale's recipe")
    context_limit: int | None = Field(
        None, gt=0, description="tokens; questions about longer contexts are left out of training, never of evaluation"
    )


class Config(_Settings):
    """One scale of the pipeline: which data, vectors, models and seeds, and how they are trained.

    Its grid is each dataset with its models: those that it names, or all that answer what it asks (its task).
    """

    scale: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="names the folders under results/ and reports/")
    seeds: Seeds
    data: DataConfig = DataConfig()
    vectors: VectorsConfig = VectorsConfig()
    datasets: dict[str, DatasetConfig] = Field(min_length=1)
    models: dict[str, ModelConfig] = Field(min_length=1)
    training: TrainingConfig = TrainingConfig()
    speed: SpeedConfig = SpeedConfig()

    @field_validator("datasets")
    @classmethod
    def _datasets_are_known(cls, datasets: dict[str, DatasetConfig]) -> dict[str, DatasetConfig]:
        if unknown := [name for name in datasets if name not in DATASETS]:
            raise ValueError(f"unknown dataset {', '.join(unknown)}: choose among {', '.join(DATASETS)}")
        return datasets

    @field_validator("models")
    @classmethod
    def _model_names_are_path_parts(cls, models: dict[str, ModelConfig]) -> dict[str, ModelConfig]:
        for name in models:
            if not name or not all(letter.isalnum() or letter in "-_." for letter in name) or name.startswith("."):
                raise ValueError(f"model name {name!r} becomes a folder: use letters, digits, '-', '_' and '.'")
        return models

    @model_validator(mode="after")
    def _datasets_and_models_meet(self) -> "Config":
        for name, dataset in self.datasets.items():
            answering = self.for_task(DATASETS[name].task).models
            if unknown := [model for model in dataset.models or () if model not in answering]:
                place = f"datasets.{name}.models"
                raise ValueError(f"{place}: {', '.join(unknown)}: choose among {', '.join(answering) or 'none'}")
            if dataset.context_limit is not None and DATASETS[name].task != "question_answering":
                raise ValueError(f"datasets.{name}.context_limit is for question answering: remove it")
        met = {dataset: self.models_of(dataset) for dataset in self.datasets}
        if lone := [dataset for dataset, models in met.items() if not models]:
            raise ValueError(f"no model for the dataset {', '.join(lone)}: add one, or remove the dataset")
        if lone := [name for name in self.models if not any(name in models for models in met.values())]:
            raise ValueError(f"no dataset for the model {', '.join(lone)}: add one, or remove the model")
        return self

    @model_validator(mode="after")
    def _first_steps_are_run(self) -> "Config":
        for name, model in self.models.items():
            if not isinstance(model, SkimReaderConfig) or (init := model.init_from) is None:
                continue
            place = f"models.{name}.init_from"
            if self.models.get(init.model) != model.standard:
                raise ValueError(f"{place}: {init.model!r} is not this model's standard counterpart")
            for dataset in self.datasets:
                if name not in self.models_of(dataset):
                    continue
                training = self.run(dataset, name, 0).training
                if init.step % training.validate_every or init.step > training.max_steps:
                    raise ValueError(f"{place}: step {init.step} is not one of the validations on {dataset}")
                if self.first_steps(dataset, init.model) != init:
                    raise ValueError(f"{place}: the models that start from {init.model!r} must share one step")
        return self

    @property
    def tasks(self) -> list[Task]:
        """The tasks of the scale's datasets."""
        return list(dict.fromkeys(DATASETS[name].task for name in self.datasets))

    def for_task(self, task: Task) -> "Config":
        """The part of the scale that is about one task."""
        datasets = {name: dataset for name, dataset in self.datasets.items() if DATASETS[name].task == task}
        models = {name: model for name, model in self.models.items() if model.task == task}
        return self.model_copy(update={"datasets": datasets, "models": models})

    @property
    def available(self) -> list[str]:
        """The scale's datasets that its source has: the hub lacks our own stand-ins."""
        return [name for name in self.datasets if self.data.source != "hub" or DATASETS[name].on_hub]

    def models_of(self, dataset: str) -> dict[str, ModelConfig]:
        """The models that run on one dataset."""
        named, answering = self._dataset(dataset).models, self.for_task(DATASETS[dataset].task).models
        return {name: model for name, model in answering.items() if named is None or name in named}

    def _dataset(self, name: str) -> DatasetConfig:
        if name not in self.datasets:
            raise UserError(f"unknown dataset {name!r}: the {self.scale} config has {', '.join(self.datasets)}")
        return self.datasets[name]

    def timed_models(self, dataset: str) -> list[str]:
        """The models whose speed-up is measured on one dataset: those that skim."""
        return [name for name, model in self.models_of(dataset).items() if isinstance(model, SkimmingConfig)]

    def first_steps(self, dataset: str, model: str) -> FirstSteps | None:
        """The steps that come before a run: those of the model it starts from or, where others start from it, its own.

        They are a job of their own, run once for each seed; None where a run is a single job.
        """
        inits = [getattr(other, "init_from", None) for other in self.models_of(dataset).values()]
        own = getattr(self.models[model], "init_from", None)
        return own or next((init for init in inits if init and init.model == model), None)

    def seeds_of(self, dataset: str) -> list[int]:
        """The seeds that each model runs with on one dataset."""
        return self._dataset(dataset).seeds or self.seeds

    def planned(self, dataset: str) -> int:
        """How many runs the grid has on one dataset."""
        return len(self.models_of(dataset)) * len(self.seeds_of(dataset))

    def run(self, dataset: str, model: str, seed: int) -> "RunConfig":
        """The configuration of one run; a dataset or model that the scale lacks is a `UserError`."""
        if model not in (known := self.models_of(dataset)):
            raise UserError(f"unknown model {model!r}: for {dataset} the {self.scale} config has {', '.join(known)}")
        return RunConfig(
            scale=self.scale,
            dataset=dataset,
            model_name=model,
            model=self.models[model],
            seed=seed,
            batch_size=self.datasets[dataset].batch_size,
            context_limit=self.datasets[dataset].context_limit,
            training=self.datasets[dataset].training or self.training,
        )


class RunConfig(_Settings):
    """All that decides one training run, apart from the prepared data."""

    scale: str
    dataset: str
    model_name: str
    model: ModelConfig
    seed: int
    batch_size: int
    context_limit: int | None = None
    training: TrainingConfig


def first_difference(left: BaseModel, right: BaseModel) -> str | None:
    """`key: one value, other value` of the first setting in which two models differ, nested keys with dots."""
    return _first_difference(left.model_dump(), right.model_dump(), "")


def _first_difference(left: Any, right: Any, key: str) -> str | None:
    if isinstance(left, dict) and isinstance(right, dict):
        for name in left | right:
            place = f"{key}.{name}" if key else str(name)
            if difference := _first_difference(left.get(name), right.get(name), place):
                return difference
        return None
    return None if left == right else f"{key}: {left}, {right}"


def read_config(path: Path) -> Config:
    """Read and check a config, YAML or JSON (`.json`); any mistake is a `UserError` that names the file and the key."""
    return parse_config(read_json(path) if Path(path).suffix == ".json" else read_yaml(path), str(path))


def read_yaml(path: Path) -> object:
    """The values of a YAML file; one in which a key stands twice is a `UserError`."""
    try:
        import yaml  # Imported here: a machine that only trains can do without it.
    except ImportError as error:
        advice = f"`python -m skimrnn config --config {path}` writes it as JSON where there is one"
        raise UserError(f"{path}: YAML needs PyYAML, which is not installed: {advice}") from error

    text = read_text(path)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        twice = next(_keys_given_twice(node), None)  # Before what `<<` brings is written into it.
        values = loader.construct_document(node) if node else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        reason = "mend the file"
        if isinstance(error, yaml.composer.ComposerError):  # Of anchors and documents, which the line does not show.
            reason = " ".join(part for part in (error.context, error.problem) if part)
        raise UserError(f"{path}: not valid YAML{line}: {reason}") from error
    if twice:
        raise UserError(f"{path}: the key {twice!r} is given twice: remove one of them")
    return values


def _keys_given_twice(node: Any) -> Iterator[str]:
    """The keys that stand twice in one mapping of a YAML document; what `<<` brings may be given anew."""
    if isinstance(node.value if node else None, list):
        keys: set[str] = set()
        for part in node.value:
            key, value = part if isinstance(part, tuple) else (None, part)
            name = key.value if key is not None else None
            if isinstance(name, str):  # Any other is no key, which the loader says.
                if name in keys:
                    yield name
                keys.add(name)
            yield from _keys_given_twice(value)


def parse_config(values: object, place: str) -> Config:
    """Check config values that came from `place`; the first mistake becomes a `UserError`."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first, *rest = error.errors()
        key = ".".join(str(part) for part in first["loc"]) or "the whole"
        message = message_of(first)
        if first["type"] == "extra_forbidden":
            message = "unknown key: remove it or mend its spelling"
        others = f" (and {len(rest)} more)" if rest else ""
        raise UserError(f"{place}: {key}: {message}{others}") from error
