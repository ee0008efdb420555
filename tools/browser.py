"""Use the explorer in a real browser, as a person would: load, keys, drag, click, upload.

    python tools/browser.py MODEL DATA [FOLDER]     screenshots go into FOLDER, if one is given

Prints what was done and how long the page took to answer, or a line `skipped: reason`. Exit code 1 if anything went wrong.
"""
import os, shutil, socket, subprocess, sys, tempfile, time
from importlib.util import find_spec
from pathlib import Path

FLAGS = ('--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
         '--disable-component-update --disable-sync').split()
# Ctrl-C counts, even if whoever started this runs it in the background and so ignores it.
COMMAND = [sys.executable, '-c', 'import signal, sys; signal.signal(2, signal.default_int_handler); from onenip.cli import main; sys.exit(main())', 'explore']
LOAD, ANSWER = 180_000, 30_000 # ms to wait at most; how long it takes is printed, machines differ


def missing(*packages):
    "Why there can be no test here that needs chromium and `packages`, or None."
    missing = [name for name in packages if find_spec(name) is None]
    if missing: return f'{" and ".join(missing)} not installed'
    if not shutil.which('chromium'): return 'no chromium on this machine'


def free_port():
    "A port that nobody uses."
    with socket.socket() as s:
        s.bind(('localhost', 0))
        return s.getsockname()[1]


def wait_for(port, server, seconds=120):
    "Wait until the `server` answers."
    end = time.time()+seconds
    while time.time() < end and server.poll() is None:
        try: return socket.create_connection(('localhost', port), 1).close()
        except OSError: time.sleep(.2)
    raise RuntimeError(f'no page at port {port}: the command ended with {server.poll()}')


class Visitor:
    "A person at the page: does something, and waits for pictures to change."

    def __init__(self, page, port):
        "Open the page at `port`, with nothing from other hosts."
        self.page, self.errors, self.here = page, [], f'http://localhost:{port}'
        page.route('**/*', lambda route: route.continue_() if route.request.url.startswith((self.here, 'data:', 'blob:')) else route.abort())
        page.on('pageerror', lambda error: self.errors.append(str(error)))
        page.on('console', self.note)
        start = time.time()
        page.goto(self.here, timeout=LOAD)
        self.img('fused').wait_for(timeout=LOAD)
        page.get_by_title('prompt, row 1, column 1', exact=True).wait_for(timeout=LOAD)
        page.wait_for_timeout(1000) # the last widgets
        print(f'page loaded: {time.time()-start:.0f} s')

    def note(self, message):
        "Keep an error in the console, unless it is about a style sheet of another host, which was refused above."
        if message.type == 'error' and 'ERR_FAILED' not in message.text: self.errors.append(message.text)

    def img(self, name):
        "The picture whose text starts with `name`."
        return self.page.locator(f'img[alt^="{name}"]').first

    def sees(self, what, act, *changing, same=()):
        "Do `act`; the pictures `changing` must change, those in `same` must not."
        before = {name: self.img(name).get_attribute('src') for name in (*changing, *same)}
        start = time.time()
        act()
        for name in changing:
            script = '([name, old]) => { const i = document.querySelector(`img[alt^="${name}"]`); return i && i.src !== old }'
            self.page.wait_for_function(script, arg=[name, before[name]], timeout=ANSWER, polling=5)
        took = 1000*(time.time()-start)
        self.page.wait_for_timeout(400)
        for name in same: assert self.img(name).get_attribute('src') == before[name], f'{what}: {name} changed'
        print(f'{what}: {took:.0f} ms')

    def handle(self, label):
        "The handle of the slider beside the number with this `label`."
        return self.page.locator('.widget-hbox', has=self.page.get_by_label(label, exact=True)).locator('.noUi-handle').first

    def drag(self, label, dx):
        "Drag a slider by `dx` pixels."
        box = self.handle(label).bounding_box()
        x, y = box['x']+box['width']/2, box['y']+box['height']/2
        self.page.mouse.move(x, y); self.page.mouse.down(); self.page.mouse.move(x+dx/2, y); self.page.mouse.move(x+dx, y); self.page.mouse.up()

    def upload(self, file):
        "Choose a `file` to upload."
        with self.page.expect_file_chooser() as chooser: self.page.get_by_role('button', name='Upload a photo').click()
        chooser.value.set_files(file)

    def click_patch(self, side, row, column, grid):
        "Click where a patch is in the picture, not at a button found by name."
        box = self.img(f'{side}, ').bounding_box()
        self.page.mouse.click(box['x']+(column-.5)*box['width']/grid, box['y']+(row-.5)*box['height']/grid)


def visit(page, port, photo, folder):
    "Everything a visitor does; `photo` is a file to upload."
    v = Visitor(page, port)
    asks, looks = ('photo, ', 'prompt, ') # the pictures of patches
    number = lambda label: page.get_by_label(label, exact=True)
    if folder: shoot(page, folder, 'loaded')
    v.sees('slider by key', lambda: (v.handle('α').focus(), page.keyboard.press('ArrowLeft'), page.keyboard.press('ArrowLeft')), 'fused', same=['residual', 'refined', 'photo: '])
    v.sees('slider by mouse', lambda: v.drag('Overlay', -40), 'residual', 'refined', 'fused', same=['photo: '])
    v.sees('number', lambda: (number('Overlay').fill('0.9'), page.keyboard.press('Enter')), 'residual')
    v.sees('colours', lambda: page.get_by_label('Colours').select_option('viridis'), 'residual', 'fused')
    v.sees('patch by mouse', lambda: v.click_patch('photo', 3, 5, 14), asks, looks)
    assert [number(k).input_value() for k in ('Row', 'Column')] == ['3', '5'], 'another patch than the one clicked'
    v.sees('patch by key', lambda: (v.handle('Row').focus(), page.keyboard.press('ArrowRight')), asks, looks)
    assert number('Row').input_value() == '4'
    v.sees('head', lambda: page.get_by_label('Head').select_option('head 3'), looks, same=[asks])
    v.sees('patch of the prompt', lambda: v.click_patch('prompt', 12, 2, 14), asks, looks)
    assert page.get_by_label('Asking').input_value() == 'prompt'
    v.sees('last attention', lambda: page.get_by_label('Layer').select_option('last'), asks, same=[looks])
    prompts = page.get_by_label('Prompts', exact=True)
    v.sees('new prompt', lambda: prompts.select_option(index=2), 'prompt: ', 'fused', looks, same=['photo: '])
    v.sees('two prompts', lambda: prompts.select_option(index=[0, 2]), 'prompt: ', 'residual', same=['photo: '])
    v.sees('another photo', lambda: page.get_by_label('Photo', exact=True).select_option(index=1), 'photo: ', 'fused', asks, same=['prompt: '])
    others = page.get_by_label('Prompts of').locator('option:not(:checked)').all_text_contents()
    if others: v.sees("another product's prompt", lambda: page.get_by_label('Prompts of').select_option(others[0].replace('\xa0', ' ')), 'prompt: ', 'fused')
    with tempfile.TemporaryDirectory() as d:
        broken = Path(d)/'broken.png'
        broken.write_bytes(b'no image')
        v.upload(broken)
        page.get_by_role('alert').filter(has_text='broken.png is not a readable image').wait_for(timeout=ANSWER)
    v.sees('upload', lambda: v.upload(photo), 'photo: ')
    page.get_by_role('alert').wait_for(state='detached', timeout=ANSWER)
    assert v.img('photo: uploaded').count(), 'another photo than the one uploaded'
    unnamed = page.evaluate('''[...document.querySelectorAll("img:not([alt]), select, input")].filter(e => e.offsetParent
        && !(e.alt || e.title || e.labels && e.labels.length)).map(e => e.outerHTML.slice(0, 100))''')
    assert not unnamed, f'without a label: {unnamed}'
    if folder: shoot(page, folder, 'used')
    assert not v.errors, f'errors in the page: {v.errors}'


def shoot(page, folder, name):
    "Screenshots at two widths, the whole page in each."
    for width, height in (1280, 1500), (390, 2600):
        page.set_viewport_size(dict(width=width, height=height))
        page.wait_for_timeout(800)
        page.screenshot(path=Path(folder)/f'{name}-{width}.png')
    page.set_viewport_size(dict(width=1280, height=1500))
    page.wait_for_timeout(500)


def main(model, data, folder=None):
    "Serve the explorer, and visit it."
    if reason := missing('playwright', 'voila'): return print(f'skipped: {reason}')
    from playwright.sync_api import sync_playwright
    port = free_port()
    photo = next(f for f in sorted(Path(data).rglob('*')) if f.suffix in ('.jpg', '.png'))
    server = subprocess.Popen([*COMMAND, model, data, f'--port={port}', '--no-browser'], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(port, server)
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=shutil.which('chromium'), args=FLAGS)
            visit(browser.new_page(viewport=dict(width=1280, height=1500)), port, photo, folder)
            browser.close()
    finally:
        server.send_signal(2)
        try: server.wait(60)
        except subprocess.TimeoutExpired: os.killpg(server.pid, 9) # nothing is left behind
    assert server.returncode == 0, f'the command ended with exit code {server.returncode}'
    print('everything answered, no error in the page')


if __name__ == '__main__': main(*sys.argv[1:])
