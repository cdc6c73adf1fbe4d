'use strict';
{
    // Times go on while the page is open. Without a script they stay as they were rendered.
    const units = [['day', 86400], ['hour', 3600], ['minute', 60], ['second', 1]];
    const words = new Intl.RelativeTimeFormat(document.documentElement.lang || 'en', {numeric: 'always'});
    const times = Array.from(document.querySelectorAll('.app-django_secret_registry #content time'));

    const relative = (time, now) => {
        const seconds = (Date.parse(time.dateTime) - now) / 1000;
        if (seconds <= 0 && time.dataset.past) {
            return time.dataset.past;
        }
        const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) || ['second', 1];
        return words.format(Math.trunc(seconds / size) || -0, unit);
    };

    setInterval(() => {
        const now = Date.now();
        for (const time of times) {
            const text = relative(time, now);
            if (time.textContent !== text) {
                time.textContent = text;
            }
        }
    }, 1000);
}
{
    // The page of an action follows the fleet until all have answered, or for a minute. Without a
    // script, or when the session is over, its link does.
    const told = document.querySelector('.secret-registry-applied[data-poll]');
    const bar = document.querySelector('.secret-registry-progress');
    let left = 120;

    const look = async () => {
        try {
            const answer = await fetch(told.dataset.poll, {redirect: 'error'});
            const said = await answer.json();
            if (told.textContent !== said.text) {
                told.textContent = said.text;
                bar.max = said.total || 1;
                bar.value = said.applied;
            }
            left = said.over ? 0 : left - 1;
        } catch {
            left -= 10;
        }
        if (left > 0) {
            setTimeout(look, 500);
        }
    };

    if (told) {
        setTimeout(look, 250);
    }
}
