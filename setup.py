"Reads everything from `settings.ini`, the one place where the project is described."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

config = ConfigParser(delimiters=['='])
config.read('settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

def requirements(name): return cfg.get(name, '').split()

demo, onnx, explore, compare = (requirements(f'{name}_requirements') for name in ('demo', 'onnx', 'explore', 'compare'))

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license='Apache-2.0',
    long_description=Path('README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    packages=find_packages(include=['onenip', 'onenip.*']), include_package_data=True,
    package_data={'onenip': ['assets/*', 'assets/**/*']}, python_requires=f">={cfg['min_python']}",
    install_requires=requirements('requirements'),
    extras_require={'demo': demo, 'onnx': onnx, 'explore': explore, 'compare': compare, 'dev': demo + onnx + explore + requirements('dev_requirements')},
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"]},
    zip_safe=False)
