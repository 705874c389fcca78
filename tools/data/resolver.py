# SPDX-License-Identifier: Apache-2.0
"""Whether names are resolved quickly here: thousands of downloads a second ask as many names."""

import concurrent.futures
import ipaddress
import socket
import time
import urllib.parse
from collections.abc import Iterable

_HOSTS, _FEW = 20, 5
_WAIT_SECONDS = 5.0
_SLOW_SECONDS = 0.2


def hosts_of(urls: Iterable[str]) -> list[str]:
    """The first distinct names of hosts among addresses; numbers and this machine are left out."""
    found: dict[str, None] = {}
    for url in urls:
        try:
            host = urllib.parse.urlsplit(url).hostname or ""
        except ValueError:
            continue
        if host and host != "localhost" and not _is_number(host):
            found[host] = None
        if len(found) == _HOSTS:
            break
    return list(found)


def complaint(hosts: list[str]) -> str:
    """What is wrong with resolving `hosts`; "" if nothing, or they are too few to tell."""
    if len(hosts) < _FEW:
        return ""
    pool = concurrent.futures.ThreadPoolExecutor(len(hosts))
    tries = [pool.submit(_seconds, host) for host in hosts]
    done, _ = concurrent.futures.wait(tries, _WAIT_SECONDS)
    pool.shutdown(wait=False, cancel_futures=True)
    times = sorted(t.result() if t in done else _WAIT_SECONDS for t in tries)
    failed = sum(seconds >= _WAIT_SECONDS for seconds in times)
    median = times[len(times) // 2]
    if median <= _SLOW_SECONDS:
        return ""
    return (
        f"{failed} of {len(times)} host names were not resolved, and half took {median:.1f} s or "
        "more: without a fast caching resolver (knot-resolver, unbound) most images will not arrive"
    )


def _seconds(host: str) -> float:
    start = time.monotonic()
    try:
        socket.getaddrinfo(host, 80)
    except (OSError, UnicodeError):
        return _WAIT_SECONDS
    return time.monotonic() - start


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
