"""Opens /docs in a headless Chromium that can resolve no name, and runs linalg/saxpy from it.

    [API_KEY=KEY] python3 tests/clients/docs_page.py http://127.0.0.1:8080 [/usr/bin/chromium [CERTIFICATE]]

Over https:// the browser takes the key of CERTIFICATE, a PEM file, and no other; without it the page must not open.

With API_KEY it gives the page this key by its button, Authorize, which has to be there; the server is to have been started
with --auth-open-docs. The page must keep the key when it is loaded anew.

Needs `pip install playwright` (its own browsers are not needed) and a Chromium. Fails where a kernel is not shown, where
the page asks another server for anything, or where it complains of its content security policy.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys

from playwright.sync_api import Error, sync_playwright

server = sys.argv[1].rstrip("/")
chromium = sys.argv[2] if len(sys.argv) > 2 else "/usr/bin/chromium"
flags = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync""".split()
key = os.environ.get("API_KEY")
offline = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"



def pin(certificate):
    """The flag that makes Chromium take this certificate's key."""
    pem = subprocess.run(["openssl", "x509", "-in", certificate, "-noout", "-pubkey"], check=True, capture_output=True)
    command = ["openssl", "pkey", "-pubin", "-outform", "DER"]
    key = subprocess.run(command, input=pem.stdout, check=True, capture_output=True).stdout
    return f"--ignore-certificate-errors-spki-list={base64.b64encode(hashlib.sha256(key).digest()).decode()}"


def authorize(page):
    """Gives the page the key, and loads it anew."""
    page.locator("button.authorize").first.click()
    scheme = page.locator(".auth-container", has_text="x-api-key").first
    scheme.locator("input").fill(key)
    scheme.locator("button.authorize").click()
    page.locator("button.btn-done").first.click()
    page.reload()
    page.wait_for_selector(".opblock", timeout=20_000)


def is_refused(playwright):
    """Whether a browser that does not know the certificate refuses the page."""
    browser = playwright.chromium.launch(executable_path=chromium, args=[*flags, offline])
    try:
        browser.new_page().goto(f"{server}/docs")
        return False
    except Error as error:
        return "ERR_CERT_AUTHORITY_INVALID" in str(error)
    finally:
        browser.close()


with sync_playwright() as playwright:
    if server.startswith("https://"):
        assert is_refused(playwright), "a certificate of nobody's is taken"
        flags.append(pin(sys.argv[3]))
    browser = playwright.chromium.launch(executable_path=chromium, args=[*flags, offline])
    page = browser.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    opened = page.goto(server)
    page.wait_for_selector(".opblock", timeout=20_000)
    assert page.title() == "tower-kernels", page.title()
    if key:
        authorize(page)
    shown = page.eval_on_selector_all("[data-path]", "all => all.map(one => one.getAttribute('data-path'))")
    get = "([url, headers]) => fetch(url, { headers }).then(answer => answer.json())"
    kernels = page.evaluate(get, [f"{server}/kernels", {"x-api-key": key} if key else {}])["kernels"]
    missing = [kernel["id"] for kernel in kernels if not any(path.endswith("/kernels/" + kernel["id"]) for path in shown)]
    assert not missing, f"not shown: {missing}"

    path = next(path for path in shown if path.endswith("/kernels/linalg/saxpy/execute"))
    operation = page.locator("div.opblock", has=page.locator(f"[data-path='{path}']"))
    operation.locator(".opblock-summary-control").click()
    operation.locator("textarea.body-param__text").wait_for(timeout=10_000)
    operation.locator("button.execute").click()
    answer = operation.locator(".live-responses-table .response-col_description pre").first
    answer.wait_for(timeout=10_000)
    output = json.loads(answer.inner_text())["output"]
    assert output == {"y": [12, 24]}, output

    elsewhere = [url for url in asked if not url.startswith((server, "data:"))]
    assert not elsewhere, f"asked elsewhere: {elsewhere}"
    assert not complaints, complaints
    protocol = page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol")
    security = opened.security_details() or {}
    browser.close()
print(f"{protocol}, {security.get('protocol', 'no TLS')}:", end=" ")
print(f"{len(kernels)} kernels shown, saxpy run, {len(asked)} requests, all to {server}")
