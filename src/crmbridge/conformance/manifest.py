"""Topic manifest: what is declared is complete, explained, and does not contradict itself."""

from __future__ import annotations

import re
from datetime import date

from crmbridge.conformance.cases import NotApplicable, expect
from crmbridge.conformance.harness import Harness
from crmbridge.core.manifest import Auth, AuthKind, BudgetKind, IdempotencyKind
from crmbridge.core.operations import DeleteLevel, Operation, SupportLevel

__all__ = ["ManifestTopic"]

_MAX_BATCH = 10_000
_OAUTH = (AuthKind.OAUTH_CODE, AuthKind.CLIENT_CREDENTIALS)


class ManifestTopic(Harness):
    """Declarations only: nothing is called."""

    def test_manifest_names_provider_pages_and_date(self) -> None:
        manifest = self.manifest()
        expect(re.fullmatch(r"[a-z][a-z0-9_]*", manifest.slug), f"slug {manifest.slug!r} is not a plain word")
        expect(manifest.display_name and manifest.api_version, "display_name or api_version is empty")
        expect(manifest.pages, "pages is empty: name the provider's pages that were read")
        for page in manifest.pages:
            expect(re.match(r"https?://|docs/", page), f"page {page!r} is no link")
        try:
            date.fromisoformat(manifest.read_on)
        except ValueError:
            expect(False, f"read_on {manifest.read_on!r} is no date (YYYY-MM-DD)")

    def test_manifest_settings_are_explained(self) -> None:
        settings = self.manifest().settings
        names = [setting.name for setting in settings]
        expect(len(names) == len(set(names)), f"a setting is declared twice: {names}")
        for setting in settings:
            where = f"setting {setting.name!r}"
            expect(setting.label and setting.help, f"{where} lacks a label or a help text")
            expect(not (setting.is_secret and setting.default), f"{where} is secret and has a default")
            expect(not (setting.kind == "choice" and not setting.options), f"{where} is a choice of nothing")
            try:
                re.compile(setting.pattern)
            except re.error as error:
                expect(False, f"{where} has a pattern that does not compile: {error}")

    def test_manifest_auth_and_urls_name_declared_settings(self) -> None:
        manifest = self.manifest()
        secret = {setting.name for setting in manifest.settings if setting.is_secret}
        declared = {setting.name for setting in manifest.settings}
        auth = manifest.auth
        if auth.secret and auth.kind not in _OAUTH:
            expect(auth.secret in secret, f"auth.secret {auth.secret!r} is not a declared secret setting")
        if auth.user:
            expect(auth.user in declared, f"auth.user {auth.user!r} is not a declared setting")
        _expect_auth_complete(auth)
        for url in (auth.authorize_url, auth.token_url, auth.revoke_url):
            for name in re.findall(r"\{(\w+)\}", url):
                expect(name in declared, f"{{{name}}} in an auth URL is not a declared setting")
        leaked = secret & set(re.findall(r"\{(\w+)\}", manifest.base_url))
        expect(not leaked, f"base_url holds the secret setting {leaked}")

    def test_manifest_support_gives_reasons_and_links(self) -> None:
        for obj, spec in self.manifest().objects.items():
            expect(spec.native, f"{obj.value} does not name the native object")
            expect(spec.operations, f"{obj.value} declares no operation")
            for operation, support in spec.operations.items():
                where = f"{obj.value}.{operation.value}"
                if support.level is not SupportLevel.FULL:
                    expect(support.reason, f"{where} is {support.level.value} without a reason")
                if support.level is SupportLevel.NEVER:
                    expect(
                        support.link.startswith(("https://", "http://")), f"{where} is NEVER without a link"
                    )

    def test_manifest_delete_levels_agree_with_operations(self) -> None:
        manifest = self.manifest()
        for obj, spec in manifest.objects.items():
            for operation, level in (
                (Operation.DELETE, spec.delete_level),
                (Operation.ERASE, spec.erase_level),
            ):
                is_usable = manifest.supports(obj, operation).is_usable
                expect(
                    is_usable is (level is not DeleteLevel.UNSUPPORTED),
                    f"{obj.value}: {operation.value} usable is {is_usable}, its level is {level.value}",
                )

    def test_manifest_batches_and_budgets_are_sane(self) -> None:
        manifest = self.manifest()
        for obj, spec in manifest.objects.items():
            for operation, size in spec.batch.items():
                where = f"batch of {obj.value}.{operation.value}"
                expect(1 < size <= _MAX_BATCH, f"{where} is {size}; between 2 and {_MAX_BATCH}")
                expect(manifest.supports(obj, operation).is_usable, f"{where}: the operation is not usable")
        for budget in manifest.budgets:
            expect(budget.limit > 0, f"budget {budget.kind.value} allows nothing")
            is_window = budget.kind is not BudgetKind.CONCURRENT
            expect(budget.per_seconds > 0 or not is_window, f"budget {budget.kind.value} has no window")
        expect(0 < manifest.timeout_seconds <= 300, "timeout_seconds must be above 0 and at most 300")
        paging = manifest.paging
        expect(0 < paging.size <= paging.max_size, "paging.size must be above 0 and at most max_size")

    def test_manifest_idempotency_names_its_means(self) -> None:
        for obj, spec in self.manifest().objects.items():
            means = spec.idempotency
            if means.kind in (IdempotencyKind.EXTERNAL_ID, IdempotencyKind.MARK, IdempotencyKind.KEY_SENT):
                expect(means.field, f"{obj.value}: idempotency {means.kind.value} names no field")
            if means.kind is IdempotencyKind.NATURAL_KEY:
                expect(means.field or spec.natural_keys, f"{obj.value}: natural_key without natural_keys")

    def test_manifest_matches_the_credential_form(self) -> None:
        if self.emulator is None:
            raise NotApplicable("no emulator")
        manifest = self.manifest()
        emulator = self.emulator()
        given = dict.fromkeys({**emulator.settings(), **self.settings}, False)
        given.update(dict.fromkeys({**emulator.secrets(), **self.secrets}, True))
        declared = {setting.name: setting.is_secret for setting in manifest.settings}
        if manifest.auth.kind in _OAUTH:
            given.pop("access_token", None)
        for name, is_secret in given.items():
            expect(name in declared, f"the working credential has {name!r}, no declared setting")
            expect(declared[name] is is_secret, f"setting {name!r}: secret is {declared[name]} by manifest")
        for setting in manifest.settings:
            if setting.is_required and not setting.default and not setting.is_generated:
                expect(setting.name in given, f"required setting {setting.name!r} is not in the credential")

    def test_samples_use_slots_and_the_map_takes_them(self) -> None:
        manifest = self.manifest()
        for obj in manifest.objects:
            if not manifest.supports(obj, Operation.CREATE).is_usable:
                continue
            sample = self.sample(obj)
            expect(sample, f"no sample for {obj.value}: add one to samples")
            unknown = sample.keys() - self.slots(obj).keys()
            expect(not unknown, f"the sample of {obj.value} uses unknown slots: {sorted(unknown)}")
            errors = self.map_for(obj).to_native(sample).errors
            expect(not errors, f"the field map refuses the sample of {obj.value}: {errors}")

    def test_gaps_name_tests_and_give_reasons(self) -> None:
        names = {case.name for case in self.cases}
        unknown = sorted(set(self.gaps) - names)
        expect(not unknown, f"gaps name no test: {unknown}")
        silent = sorted(name for name, reason in self.gaps.items() if not reason.strip())
        expect(not silent, f"gaps without a reason: {silent}")


def _expect_auth_complete(auth: Auth) -> None:
    if auth.kind is AuthKind.API_KEY:
        expect(auth.secret and (auth.header or auth.query), "an API key needs secret and header or query")
    if auth.kind in (AuthKind.BEARER, AuthKind.HMAC):
        expect(auth.secret, f"{auth.kind.value} auth names no secret setting")
    if auth.kind is AuthKind.BASIC:
        expect(auth.secret and auth.user, "basic auth needs user and secret")
    if auth.kind in _OAUTH:
        expect(auth.token_url, f"{auth.kind.value} needs token_url")
    if auth.kind is AuthKind.OAUTH_CODE:
        expect(auth.authorize_url, "oauth_code needs authorize_url")
