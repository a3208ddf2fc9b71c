"""Endpoints of the settings and the templates of messages."""

from __future__ import annotations

from pydantic import BaseModel

from api.endpoint import endpoint
from api.pagination import list_headers
from api.resource import ApiResource
from api.serialization import EndpointResult, Serializer
from models import MessageSettings, MessageTemplate
from schemas.message_template import (
    MessageSettingsOut,
    MessageSettingsPatch,
    PreviewOut,
    TemplateOut,
    TemplatePatch,
    TemplateQuery,
)
from security.permissions import Permission
from services.listing.spec import ListQuery
from services.messages import custom_templates, settings
from services.messages.rendering import RenderedMessage

SETTINGS = Serializer(MessageSettingsOut)
TEMPLATE = Serializer(TemplateOut, computed_fields=custom_templates.add_computed_fields)


class MessageSettingsItem(ApiResource):
    """Route `/messages/settings`."""

    @endpoint(Permission.MESSAGES_CONFIGURE, load=settings.get, returns=SETTINGS)
    def get(self, row: MessageSettings) -> MessageSettings:
        """Show the settings of messages."""
        return row

    @endpoint(Permission.MESSAGES_CONFIGURE, load=settings.get, body=MessageSettingsPatch, returns=SETTINGS)
    def patch(self, row: MessageSettings, data: BaseModel) -> MessageSettings:
        """Change the settings of messages.

        They apply to messages that are planned afterwards. Quiet hours apply to waiting messages too.
        """
        return settings.update(row, **data.model_dump(exclude_unset=True))


class MessageTemplateList(ApiResource):
    """Route `/messages/templates`."""

    @endpoint(Permission.MESSAGES_CONFIGURE, query=TemplateQuery, many=True, returns=TEMPLATE)
    def get(self, query: TemplateQuery) -> EndpointResult:
        """List the templates in effect: the changed ones, and the built-in ones of all others."""
        paging = ListQuery(offset=(query.page - 1) * query.per_page, limit=query.per_page)
        page = custom_templates.find(query.kind, query.channel, query.locale, paging)
        return EndpointResult(list(page.rows), headers=list_headers(page, "templates"))


class MessageTemplateItem(ApiResource):
    """Route `/messages/templates/<kind>/<channel>/<locale>`."""

    @endpoint(Permission.MESSAGES_CONFIGURE, load=custom_templates.get, returns=TEMPLATE)
    def get(self, row: MessageTemplate) -> MessageTemplate:
        """Show a template."""
        return row

    @endpoint(Permission.MESSAGES_CONFIGURE, load=custom_templates.get, body=TemplatePatch, returns=TEMPLATE)
    def patch(self, row: MessageTemplate, data: BaseModel) -> MessageTemplate:
        """Change a template, or write one in another language.

        Variables are `{clinic}`, `{phone}`, `{date}`, `{time}`, `{link}` and others of the kind. Another name
        in braces, and an SMS with more than three parts, are a 422.
        """
        return custom_templates.update(row, **data.model_dump(exclude_unset=True))

    @endpoint(Permission.MESSAGES_CONFIGURE, load=custom_templates.get, returns=TEMPLATE)
    def delete(self, row: MessageTemplate) -> MessageTemplate:
        """Remove a changed template. The built-in text applies again."""
        return custom_templates.remove(row)


class MessageTemplatePreview(ApiResource):
    """Route `/messages/templates/<kind>/<channel>/<locale>/preview`."""

    @endpoint(
        Permission.MESSAGES_CONFIGURE, load=custom_templates.get, body=TemplatePatch, returns=PreviewOut
    )
    def post(self, row: MessageTemplate, data: BaseModel) -> RenderedMessage:
        """Show a message with example values.

        The body may contain another subject and text. Nothing is stored.
        """
        return custom_templates.preview(row, **data.model_dump(exclude_unset=True))
