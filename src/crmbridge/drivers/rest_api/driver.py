"""Generic REST: a CRM whose manifest the operator writes as one JSON document.

There is no provider: the document (see NOTES.md and ``document.py``) gives per-verb request templates, an
auth type and ``deleteIsHard``; RestDriver executes it like every other manifest, and it passes the same
contract. Design sources: RFC 9110 (methods and statuses), RFC 8288 (next links), RFC 6750 and RFC 7617 (auth),
JMESPath (https://jmespath.org/specification.html), read 2026-11-22.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from crmbridge.core.driver import Access
from crmbridge.core.errors import CrmError, FieldError, Fix, NotConfigured, UnexpectedResponse
from crmbridge.core.manifest import Auth, AuthKind, Manifest, ObjectSpec, Setting
from crmbridge.core.operations import LIMITED, DeleteLevel, Operation, Outcome
from crmbridge.core.records import FieldFact, Object, Record
from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.rest_api.document import error_texts, facts_of, manifest_of, read_document
from crmbridge.toolkit import failures
from crmbridge.toolkit.calls import extract_with
from crmbridge.toolkit.extraction import PathError
from crmbridge.toolkit.rest import RestDriver

_AS_DESCRIBED = LIMITED("as far as the operator's document describes the call")

MANIFEST = Manifest(
    slug="rest_api",
    display_name="Generic REST",
    api_version="any",
    pages=("https://www.rfc-editor.org/rfc/rfc9110", "https://jmespath.org/specification.html"),
    read_on="2026-11-22",
    auth=Auth(kind=AuthKind.NONE),
    settings=(
        Setting(
            name="manifest",
            label="Document",
            help="The JSON document that describes the service: one call per verb, auth type, deleteIsHard.",
            kind="json",
        ),
        Setting(
            name="base_url",
            label="Base URL",
            help="Address before every path of the document. May be left out when the document has a baseUrl.",
            kind="url",
            is_required=False,
            pattern=r"https?://[^\s?#@]{3,500}",
            example="https://crm.example.com/api/v1",
        ),
        Setting(
            name="user",
            label="User name",
            help="For the auth type basic.",
            is_required=False,
            pattern=r"[^\x00-\x1f:]{1,200}",
        ),
        Setting(
            name="secret",
            label="API key, token or password",
            help="For the auth types api_key, bearer and basic. It never stands in the document.",
            is_secret=True,
            is_required=False,
        ),
    ),
    base_url="{base_url}",
    objects={
        obj: ObjectSpec(
            native="as described",
            operations=dict.fromkeys(
                (
                    Operation.DESCRIBE,
                    Operation.SEARCH,
                    Operation.GET,
                    Operation.LIST,
                    Operation.CREATE,
                    Operation.UPDATE,
                    Operation.UPSERT,
                    Operation.DELETE,
                    Operation.ERASE,
                    *((Operation.LOOKUP,) if obj is Object.CUSTOMER else ()),
                ),
                _AS_DESCRIBED,
            ),
            delete_level=DeleteLevel.HARD,
            erase_level=DeleteLevel.HARD,
        )
        for obj in Object
    },
    verticals=("general", "clinic", "salon", "auto_service", "restaurant", "real_estate"),
    setup_help="Write the document (docs: howto, generic REST), test it here, then connect.",
)


@lru_cache(maxsize=128)
def _manifest(text: str) -> Manifest:
    return manifest_of(MANIFEST, text)


class RestApi(RestDriver):
    """Executes the operator's document."""

    MANIFEST = MANIFEST

    def __init__(self, access: Access) -> None:
        if not access.settings.get("manifest"):
            raise NotConfigured(
                "The document of this REST connection is missing.",
                provider=MANIFEST.slug,
                fix=Fix("fill_in", "Paste the JSON document into 'manifest' in the credential form."),
            )
        super().__init__(access)

    @classmethod
    def manifest_for(cls, settings: Mapping[str, str]) -> Manifest:
        """The document's manifest; the general one where no document is given. Raises ValidationError."""
        text = settings.get("manifest", "")
        return _manifest(text) if text.strip() else cls.MANIFEST

    def base_url(self) -> str:
        """The setting when it is filled in, else the document's own."""
        return self.access.settings.get("base_url", "").strip().rstrip("/") or super().base_url()

    def record_from(self, obj: Object, native: dict[str, Any]) -> Record:
        """Adds ``archived`` where the document names it."""
        record = super().record_from(obj, native)
        _, forms = read_document(self.access.settings["manifest"])
        record.is_archived = bool(_found(forms[obj].archived, native))
        return record

    async def describe(self, obj: Object) -> list[FieldFact]:
        """The schema that the document states; nothing is asked of the service."""
        self.spec(obj, Operation.DESCRIBE)
        _, forms = read_document(self.access.settings["manifest"])
        return facts_of(forms[obj])

    def error_from(self, response: HttpResponse, operation: str, is_write: bool) -> CrmError | None:
        """By the document's ``errors``: where messages stand, and which 2xx is an error."""
        document, _ = read_document(self.access.settings["manifest"])
        form = document.errors
        is_fine = 200 <= response.status < 300
        if response.status >= 500 or not (form.when if is_fine else form.message or form.code or form.fields):
            return None
        tree = failures.tree_or_none(response)
        if tree is None:
            return None
        if is_fine:
            return self._error_in_success(form.when, form.message, tree, operation, is_write)
        return failures.error_for_status(
            response,
            provider=self.manifest.slug,
            operation=operation,
            is_write=is_write,
            message=_found_text(form.message, tree),
            provider_code=_found_text(form.code, tree),
            fields=tuple(
                FieldError(name, text) for name, text in error_texts(_found(form.fields, tree)).items()
            ),
        )

    def _error_in_success(
        self, when: str, message: str, tree: Any, operation: str, is_write: bool
    ) -> CrmError | None:
        if not _found(when, tree):
            return None
        return UnexpectedResponse(
            f"{self.manifest.display_name} answered success with an error in it: {_found_text(message, tree)}",
            provider=self.manifest.slug,
            operation=operation,
            outcome=Outcome.UNKNOWN if is_write else Outcome.NOT_APPLIED,
            retry_safe=not is_write,
        )


def _found(expression: str, tree: Any) -> Any:
    try:
        return extract_with(expression)(tree) if expression else None
    except PathError:
        return None


def _found_text(expression: str, tree: Any) -> str:
    found = _found(expression, tree)
    return str(found) if isinstance(found, (str, int)) else ""
