"""The web pages, served by the API's process: overview, list, a saga's page with its actions.

    pages.routes(behind, door, status_of)      what `kasaga.api.app` adds to its application

    pages      addresses, the way in, errors          acts       an action, from its form to its answer
    overview   the first page's figures               session    cookies
    listing    filters, paging, addresses             render     templates, files, headers
    story      a saga's page                          bars       its timeline

Templates and files are beside these; there is no build step. Needs `pip install 'kasaga[api]'`.
"""
