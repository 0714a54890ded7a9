#!/usr/bin/env bash
# The image in the README: the head of a report and the four images it does worst on, photographed by Chromium (and a font with Han characters).
#
#   scripts/screenshot_report.sh .llavm/jobs/report/KEY/report.html docs/report.png
set -euo pipefail
page="$(mktemp --suffix=.html)"
trap 'rm -f "$page"' EXIT
hide='body > section:nth-of-type(n+3):not(#gallery), .card:nth-child(n+5), #gallery > .fine { display: none } section { margin-top: 2rem }'
sed "s|</style>|$hide</style>|" "$1" > "$page"
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1120,"${3:-1665}" --screenshot="$2" "file://$page" 2> /dev/null
