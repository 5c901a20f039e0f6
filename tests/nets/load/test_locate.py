"""Where a model comes from; the hub is played by a function."""

from types import SimpleNamespace

import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from promptlimits.base.errors import UserError
from promptlimits.nets.load import locate as module
from promptlimits.nets.load.locate import HTTP_ERRORS, locate


@pytest.mark.parametrize("allow_hub", [True, False])
def test_a_hub_model_keeps_its_id_and_its_revision_is_noted(checkpoint, monkeypatch, allow_hub):
    asked = []

    def hub(reference, **options):
        asked.append((reference, options))
        return str(checkpoint)

    monkeypatch.setattr(module, "snapshot_download", hub)
    found = locate("org/name", allow_hub=allow_hub)
    assert (found.name, found.path, found.directory) == ("org/name", "org/name", checkpoint)
    assert found.notes == (f"hub revision {checkpoint.name}",)
    [(reference, options)] = asked
    assert reference == "org/name"
    assert options["local_files_only"] is not allow_hub
    assert not any("bin" in pattern or "py" in pattern for pattern in options["allow_patterns"])


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (GatedRepoError, "whose terms you have not accepted; accept them on its page"),
        (RepositoryNotFoundError, "exist on the hub, got no such model"),
    ],
)
def test_what_the_hub_refuses_is_one_line(monkeypatch, failure, said):
    response = SimpleNamespace(headers={}, request=None, status_code=404)

    def hub(_reference, **_options):
        raise failure("long\nstory", response=response)

    monkeypatch.setattr(module, "snapshot_download", hub)
    with pytest.raises(UserError) as caught:
        locate("org/name")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_connection_that_breaks_off_is_one_line(monkeypatch):
    [broken] = {error for error in HTTP_ERRORS if not issubclass(error, OSError)}

    def hub(_reference, **_options):
        raise broken("reset")

    monkeypatch.setattr(module, "snapshot_download", hub)
    with pytest.raises(UserError, match="within reach on the hub"):
        locate("org/name")
