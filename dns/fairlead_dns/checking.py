"""Everything that can be known of the settings before anything is bound, read or written: what `--check` looks at."""

from fairlead_dns import answer_settings, forward_settings, front_settings
from fairlead_dns import settings as told
from fairlead_dns.adapters import mesos_master
from fairlead_dns.adapters.sockets import parse_place
from fairlead_dns.naming_settings import read_queries
from fairlead_dns.settings import DnsSettings
from fairlead_dns.transfer_settings import peers


def check(settings: DnsSettings) -> None:
    """Raises BadSettings naming the key."""
    told.rules(settings)
    apexes = told.authority(settings).apexes
    answer_settings.manner(settings)
    answer_settings.readers(settings)
    answer_settings.closed(settings)
    front_settings.check(settings)
    front_settings.check_proxied(settings, (*settings.listen, *settings.listen_optional))
    forward_settings.groups(settings, (), apexes)
    forward_settings.open_to(settings)
    forward_settings.limits(settings, settings.waiting)
    forward_settings.policy(settings)
    peers(settings)
    read_queries(settings)
    if settings.mesos is not None:
        mesos_master.check(settings.mesos)
    for key in ("listen", "listen_tls", "listen_https"):
        for place in getattr(settings, key):
            parse_place(key, place)
