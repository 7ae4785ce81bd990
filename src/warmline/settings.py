"""What every section of a configuration is made of; the sections themselves stand beside what they configure, the whole in `config.py`."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from warmline.paths import expand_home, refuse_no_path

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Folder = Annotated[Path, BeforeValidator(refuse_no_path), AfterValidator(expand_home)]


class Section(BaseModel):
    """Settings that stand together: unknown keys are refused, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
