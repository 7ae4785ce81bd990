"""The chat template for tools that know no system prompt of ours."""

from warmline.data.template import ChatTemplate


def with_system_prompt(template: ChatTemplate) -> str:
    """Jinja source that renders what `ChatTemplate.render` does: a run's system prompt stands before conversations that bring none.

    Args:
        template: Of the run.
    """
    if not template.system_prompt:
        return template.source
    literal = template.clean(template.system_prompt).encode("unicode_escape").decode("ascii").replace("'", "\\'")
    return (
        "{%- if not messages or messages[0].role != 'system' -%}"
        f"{{%- set messages = [{{'role': 'system', 'content': '{literal}'}}] + messages -%}}"
        "{%- endif -%}\n" + template.source
    )
