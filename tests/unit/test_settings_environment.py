"""Settings from the environment: defaults, parsing, and refusals that name the variable and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.settings import PREFIX, SettingRefused, Settings, describe_settings, unknown_variables

DSN = "postgresql://crmbridge_app:hunter2hunter2@db.example.com:5432/crmbridge"


def read(**values: str) -> Settings:
    return Settings.from_environment(
        {"HOME": "/home/jo", **{PREFIX + name: text for name, text in values.items()}}
    )


def test_defaults_when_nothing_is_set_then_embedded_and_local() -> None:
    settings = read()
    assert settings.is_embedded
    assert (settings.host, settings.port, settings.base_url) == ("127.0.0.1", 8700, "http://localhost:8700")
    assert settings.max_body_bytes == 1024 * 1024
    assert settings.data_dir == Path("/home/jo/.local/share/crmbridge")
    assert settings.egress_allow == ()
    assert not settings.master_key


def test_data_dir_when_xdg_is_set_then_it_wins_over_home() -> None:
    settings = Settings.from_environment({"HOME": "/home/jo", "XDG_DATA_HOME": "/srv/data"})
    assert settings.data_dir == Path("/srv/data/crmbridge")


def test_values_when_set_then_typed() -> None:
    settings = read(
        DATABASE_URL=DSN,
        DATABASE_SCHEDULER_URL=DSN.replace("_app", "_scheduler"),
        PORT="9000",
        PUBLIC_URL="https://crm.example.com/",
        EGRESS_ALLOW="odoo.internal:8069, 10.0.0.0/8,",
        PREPARED_STATEMENTS="off",
        LOG_FORMAT="JSON",
        MASTER_KEY_FILE="~/master.key",
    )
    assert not settings.is_embedded
    assert settings.port == 9000
    assert settings.base_url == "https://crm.example.com"
    assert settings.egress_allow == ("odoo.internal:8069", "10.0.0.0/8")
    assert settings.prepared_statements is False
    assert settings.log_format == "json"
    assert settings.master_key_file == Path("~/master.key").expanduser()


def test_oidc_when_set_then_the_issuer_is_kept_to_the_letter() -> None:
    settings = read(
        OIDC_ISSUER="https://login.example.com/realms/one/",
        OIDC_CLIENT_ID="crmbridge",
        OIDC_CLIENT_SECRET="hunter2hunter2",
        OIDC_REQUIRED="yes",
    )
    assert settings.oidc_issuer == "https://login.example.com/realms/one/"
    assert settings.oidc_required and settings.oidc_name == "Single sign-on"
    assert "hunter2" not in repr(settings)
    assert read(OIDC_REQUIRED="false").oidc_issuer == ""


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"OIDC_ISSUER": "https://login.example.com"}, {"OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"}),
        ({"OIDC_CLIENT_ID": "a", "OIDC_CLIENT_SECRET": "b"}, {"OIDC_ISSUER"}),
        ({"OIDC_REQUIRED": "true"}, {"OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"}),
    ],
)
def test_oidc_when_half_is_set_then_the_missing_ones_are_named(
    given: dict[str, str], missing: set[str]
) -> None:
    with pytest.raises(SettingRefused) as caught:
        read(**given)
    assert {problem.field for problem in caught.value.fields} == {PREFIX + name for name in missing}


def test_empty_value_when_set_then_counts_as_not_set() -> None:
    assert read(PORT=" ", DATABASE_URL="").port == 8700


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "0"),
        ("PORT", "70000"),
        ("PORT", "http"),
        ("PORT", "٨٧٠٠"),
        ("POOL_SIZE", "1"),
        ("MAX_BODY_BYTES", "1MiB"),
        ("PUBLIC_URL", "http://crm.example.com"),
        ("PUBLIC_URL", "https://crm.example.com/path"),
        ("PUBLIC_URL", "https://user:pw@crm.example.com"),
        ("EGRESS_ALLOW", "https://odoo.internal"),
        ("EGRESS_ALLOW", "a b"),
        ("LOG_LEVEL", "loud"),
        ("OIDC_ISSUER", "http://login.example.com"),
        ("OIDC_ISSUER", "https://login.example.com/?tenant=one"),
        ("OIDC_ISSUER", "https://user@login.example.com"),
        ("OIDC_ISSUER", "login.example.com"),
        ("OIDC_NAME", "n" * 61),
        ("PREPARED_STATEMENTS", "maybe"),
    ],
)
def test_bad_value_when_read_then_error_names_variable_and_example(name: str, text: str) -> None:
    with pytest.raises(SettingRefused) as caught:
        read(**{name: text})
    message = caught.value.message
    assert message.startswith(f"{PREFIX}{name}: expected ")
    assert f"Set it like {PREFIX}{name}=" in message
    assert [field.field for field in caught.value.fields] == [PREFIX + name]


@pytest.mark.parametrize("name", ["DATABASE_URL", "DATABASE_SCHEDULER_URL", "DATABASE_OWNER_URL"])
def test_bad_secret_when_read_then_only_its_length_is_told(name: str) -> None:
    with pytest.raises(SettingRefused) as caught:
        read(**{name: "mysql://root:hunter2hunter2@db/x"})
    assert "hunter2" not in str(caught.value)
    assert "mysql" not in str(caught.value)
    assert "a text of 32 characters" in caught.value.message


def test_several_bad_values_when_read_then_one_error_names_all() -> None:
    with pytest.raises(SettingRefused) as caught:
        read(PORT="x", LOG_LEVEL="y", POOL_SIZE="z")
    assert {field.field for field in caught.value.fields} == {
        PREFIX + n for n in ("PORT", "LOG_LEVEL", "POOL_SIZE")
    }


def test_database_url_when_alone_then_the_missing_partner_is_named() -> None:
    with pytest.raises(SettingRefused, match="CRMBRIDGE_DATABASE_SCHEDULER_URL is missing"):
        read(DATABASE_URL=DSN)


def test_both_master_keys_when_set_then_refused() -> None:
    with pytest.raises(SettingRefused, match="both set"):
        read(MASTER_KEY="k1:xxxx", MASTER_KEY_FILE="/x")


def test_port_when_set_by_kubernetes_then_the_fix_is_told() -> None:
    with pytest.raises(SettingRefused, match="enableServiceLinks: false"):
        read(PORT="tcp://10.1.2.3:8700")


def test_repr_when_secrets_are_set_then_they_are_not_shown() -> None:
    settings = read(
        DATABASE_URL=DSN,
        DATABASE_SCHEDULER_URL=DSN,
        DATABASE_OWNER_URL=DSN,
        MASTER_KEY="k1:supersecretbase64",
    )
    assert "hunter2" not in repr(settings)
    assert "supersecret" not in repr(settings)


def test_describe_settings_when_read_back_then_every_example_parses() -> None:
    facts = describe_settings()
    assert len({fact.variable for fact in facts}) == len(facts)
    for fact in facts:
        assert fact.help.endswith((".", "`."))
        assert fact.example
        values = {fact.variable: fact.example}
        if "DATABASE" in fact.variable:
            values[f"{PREFIX}DATABASE_URL"] = values[f"{PREFIX}DATABASE_SCHEDULER_URL"] = DSN
        if "OIDC" in fact.variable:
            others = {other.variable: other.example for other in facts if "OIDC" in other.variable}
            values = {**others, **values}
        Settings.from_environment({"HOME": "/h", **values})


def test_describe_settings_when_default_is_written_then_it_reads_as_the_default() -> None:
    for fact in describe_settings():
        if fact.field == "data_dir" or not fact.default:
            continue
        settings = Settings.from_environment({"HOME": "/h", fact.variable: fact.default})
        assert settings == Settings.from_environment({"HOME": "/h"}), fact


def test_unknown_variables_when_misspelt_then_the_nearest_is_named() -> None:
    found = unknown_variables({"CRMBRIDGE_DATABSE_URL": "x", "CRMBRIDGE_TEST_X": "y", "PATH": "/bin"})
    assert found == {"CRMBRIDGE_DATABSE_URL": "CRMBRIDGE_DATABASE_URL"}


@given(
    st.dictionaries(
        st.sampled_from([f.variable for f in describe_settings()]), st.text(max_size=40), max_size=6
    )
)
def test_any_text_when_read_then_settings_or_a_clear_refusal(environ: dict[str, str]) -> None:
    try:
        Settings.from_environment({"HOME": "/h", **environ})
    except SettingRefused as refused:
        assert all(field.field in refused.message for field in refused.fields)
