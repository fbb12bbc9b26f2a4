"""A web page from a template: an invoice, whose texts come from strangers."""
import jinja2

PAGE = jinja2.Environment(autoescape=True).from_string("""\
<!doctype html>
<title>Invoice {{ number }}</title>
<table>
{% for item in items %}
<tr><td>{{ item.name }}<td>{{ item.count }}<td>{{ "%.2f"|format(item.count * item.price) }}
{% endfor %}
</table>
<p>{{ items|sum(attribute="count") }} items, {{ "%.2f"|format(total) }} in all
""")


def main(payload):
    items = payload["items"]
    page = PAGE.render(number=payload["number"], items=items,
                       total=sum(i["count"] * i["price"] for i in items))
    return {"statusCode": 200, "headers": {"Content-Type": "text/html; charset=utf-8"}, "body": page}
