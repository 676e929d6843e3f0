"""What the commands call. Importing this module loads TensorFlow; see `loading`."""

import tensorflow as tf

from vae_aug.augment.transform import VAEAugment
from vae_aug.codecs.extent import join_extents
from vae_aug.demo import run_demo
from vae_aug.evaluate.audit import audit_memorisation
from vae_aug.evaluate.denoising import Corruptions, evaluate_denoising
from vae_aug.evaluate.diversity import measure_diversity
from vae_aug.evaluate.fidelity import measure_box_fidelity
from vae_aug.evaluate.membership import REPORT_NAME, audit_membership
from vae_aug.evaluate.model_card import MODEL_CARD, write_model_card
from vae_aug.evaluate.outcome import OUTCOME_NAME, judge_training
from vae_aug.evaluate.preview import choose_rows, write_preview
from vae_aug.evaluate.report import print_denoising, print_diversity, write_report
from vae_aug.evaluate.speed import WAYS, Speed, list_engines, measure_engines
from vae_aug.evaluate.subset import Subset
from vae_aug.evaluate.sweep import Sweep
from vae_aug.extras.augment_records import augment_records, summarize_records
from vae_aug.extras.denoise_files import denoise_files
from vae_aug.extras.doctor import diagnose, empty_cache, hide_home, measure_cache
from vae_aug.extras.patients import count_patients, refuse_seen
from vae_aug.extras.replay import read_provenance, replay_record
from vae_aug.ingest.ingest import ingest, ingest_by_patient
from vae_aug.ingest.reading import find_hashed
from vae_aug.ingest.splits import count_leaks, find_leaks
from vae_aug.model.checkpoint import load_checkpoint, read_manifest
from vae_aug.records.check import DAMAGE, check_records
from vae_aug.records.records import read_records
from vae_aug.train.pace import format_duration
from vae_aug.train.run_files import CURVES_NAME
from vae_aug.train.train import train
from vae_aug.train.tune import BEST_NAME, TABLE_NAME, SearchConfig, tune
